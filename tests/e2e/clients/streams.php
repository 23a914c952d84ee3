<?php
// As python_client.py, with PHP's streams (file_get_contents). They read no proxy variable, so the
// program hands the proxy and its credential over.
//
//     php streams.php BASE_URL PLACEHOLDER
[, $base, $key] = $argv;
$proxy = parse_url(getenv("HTTPS_PROXY"));
$credential = base64_encode(rawurldecode($proxy["user"]) . ":" . rawurldecode($proxy["pass"]));
$form = ["Content-Type: application/x-www-form-urlencoded"];
$json = ["Content-Type: application/json"];
$requests = [
    "header" => ["header", ["Authorization: Bearer $key"], null],
    "basic" => ["basic", ["Authorization: Basic " . base64_encode("user:$key")], null],
    "query" => ["query?b=1+2&key=$key", [], null], // goes out as it is
    "path" => ["path/$key/x", [], null],
    "json" => ["json", $json, json_encode(["key" => $key])],
    "form" => ["form", $form, http_build_query(["b" => "ü", "key" => $key])],
];
$results = [];
foreach ($requests as $place => [$path, $fields, $content]) {
    $options = [
        "method" => $content === null ? "GET" : "POST",
        "proxy" => "tcp://{$proxy["host"]}:{$proxy["port"]}",
        "header" => ["Proxy-Authorization: Basic $credential", ...$fields],
        "ignore_errors" => true,
    ];
    if ($content !== null) {
        $options["content"] = $content;
    }
    $body = file_get_contents("$base/$path", false, stream_context_create(["http" => $options]));
    $results[$place] = [(int) explode(" ", $http_response_header[0])[1], $body];
}
echo json_encode(["version" => PHP_VERSION, "results" => $results]), "\n";
