# As python_client.py, with LWP. Proxy and CA come from the environment.
#
#     perl client.pl BASE_URL PLACEHOLDER
use strict;
use warnings;
use utf8;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
BEGIN {
    for my $module (qw(LWP/UserAgent.pm HTTP/Request/Common.pm LWP/Protocol/https.pm)) {
        next if eval { require $module };
        print STDERR "MISSING: $module (Debian: libwww-perl, liblwp-protocol-https-perl)\n";
        exit 69;
    }
    HTTP::Request::Common->import(qw(GET POST));
}

my ($base, $key) = @ARGV;
my $agent = LWP::UserAgent->new(env_proxy => 1);
my $json = JSON::PP->new->canonical;
my @requests = (
    header => GET("$base/header", Authorization => "Bearer $key"),
    basic  => GET("$base/basic", Authorization => "Basic " . encode_base64("user:$key", "")),
    query  => GET("$base/query?b=1+2&key=$key"),
    path   => GET("$base/path/$key/x"),
    json   => POST("$base/json", "Content-Type" => "application/json",
        Content => $json->encode({ key => $key })),
    form => POST("$base/form", [b => "ü", key => $key]),
    multipart => POST("$base/multipart", "Content-Type" => "form-data", Content => [key => $key]),
);
my %results;
while (my ($place, $request) = splice(@requests, 0, 2)) {
    my $answer = $agent->request($request);
    $results{$place} = [$answer->code + 0, $answer->decoded_content // $answer->content];
}
print JSON::PP->new->ascii->encode({ version => $LWP::VERSION, results => \%results }), "\n";
