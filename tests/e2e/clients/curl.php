<?php
// As python_client.py, with PHP's curl extension. Proxy and CA come from the environment: curl reads
// the first, OpenSSL's default the second.
//
//     php curl.php BASE_URL PLACEHOLDER
[, $base, $key] = $argv;
if (!extension_loaded("curl")) {
    fwrite(STDERR, "MISSING: PHP's curl extension (Debian: php-curl)\n");
    exit(69);
}
$requests = [
    "header" => [CURLOPT_URL => "$base/header", CURLOPT_HTTPHEADER => ["Authorization: Bearer $key"]],
    "basic" => [CURLOPT_URL => "$base/basic", CURLOPT_USERPWD => "user:$key"],
    "query" => [CURLOPT_URL => "$base/query?" . http_build_query(["b" => "1 2", "key" => $key])],
    "path" => [CURLOPT_URL => "$base/path/$key/x"],
    "json" => [
        CURLOPT_URL => "$base/json",
        CURLOPT_HTTPHEADER => ["Content-Type: application/json"],
        CURLOPT_POSTFIELDS => json_encode(["key" => $key]),
    ],
    "form" => [
        CURLOPT_URL => "$base/form",
        CURLOPT_POSTFIELDS => http_build_query(["b" => "ü", "key" => $key]),
    ],
    "multipart" => [CURLOPT_URL => "$base/multipart", CURLOPT_POSTFIELDS => ["key" => $key]],
];
$results = [];
foreach ($requests as $place => $options) {
    $handle = curl_init();
    curl_setopt_array($handle, $options + [CURLOPT_RETURNTRANSFER => true]);
    $body = curl_exec($handle);
    if ($body === false) {
        fwrite(STDERR, "$place: " . curl_error($handle) . "\n");
        exit(1);
    }
    $results[$place] = [curl_getinfo($handle, CURLINFO_RESPONSE_CODE), $body];
}
echo json_encode(["version" => PHP_VERSION, "results" => $results]), "\n";
