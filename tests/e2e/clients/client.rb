# As python_client.py, with Net::HTTP, which reads http_proxy alone, for https too. URI() refuses
# braces, so they are written percent-encoded.
#
#     ruby client.rb BASE_URL PLACEHOLDER
require "erb"
require "json"
require "net/http"

base, key = ARGV
requests = {
  "header" => Net::HTTP::Get.new(URI("#{base}/header"), "Authorization" => "Bearer #{key}"),
  "basic" => Net::HTTP::Get.new(URI("#{base}/basic")).tap { |it| it.basic_auth("user", key) },
  "query" => Net::HTTP::Get.new(URI("#{base}/query?#{URI.encode_www_form(b: "1 2", key: key)}")),
  "path" => Net::HTTP::Get.new(URI("#{base}/path/#{ERB::Util.url_encode(key)}/x")),
  "json" => Net::HTTP::Post.new(URI("#{base}/json"), "Content-Type" => "application/json").tap do |it|
    it.body = JSON.generate(key: key)
  end,
  "form" => Net::HTTP::Post.new(URI("#{base}/form")).tap { |it| it.set_form_data(b: "ü", key: key) },
  "multipart" => Net::HTTP::Post.new(URI("#{base}/multipart")).tap do |it|
    it.set_form([["key", key]], "multipart/form-data")
  end
}
address = URI(base)
results = Net::HTTP.start(address.host, address.port, use_ssl: true) do |http|
  requests.transform_values do |request|
    answer = http.request(request)
    [answer.code.to_i, answer.body.force_encoding("UTF-8")]
  end
end
puts JSON.generate(version: RUBY_VERSION, results: results)
