// As python_client.py, with net/http. Proxy and CA come from the environment.
//
//	client BASE_URL PLACEHOLDER
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
)

func main() {
	base, key := os.Args[1], os.Args[2]
	results := map[string][2]any{}
	send := func(place, method, path string, body io.Reader, change func(*http.Request)) {
		request, err := http.NewRequest(method, base+path, body)
		check(err)
		change(request)
		answer, err := http.DefaultClient.Do(request)
		check(err)
		defer answer.Body.Close()
		said, err := io.ReadAll(answer.Body)
		check(err)
		results[place] = [2]any{answer.StatusCode, string(said)}
	}
	kind := func(name string) func(*http.Request) {
		return func(request *http.Request) { request.Header.Set("Content-Type", name) }
	}
	nothing := func(*http.Request) {}

	send("header", "GET", "/header", nil, func(request *http.Request) {
		request.Header.Set("Authorization", "Bearer "+key)
	})
	send("basic", "GET", "/basic", nil, func(request *http.Request) {
		request.SetBasicAuth("user", key)
	})
	send("query", "GET", "/query?b=1+2&key="+key, nil, nothing) // goes out as it is
	send("path", "GET", "/path/"+key+"/x", nil, nothing)
	text, err := json.Marshal(map[string]string{"key": key})
	check(err)
	send("json", "POST", "/json", bytes.NewReader(text), kind("application/json"))
	form := url.Values{"b": {"ü"}, "key": {key}}
	send("form", "POST", "/form", strings.NewReader(form.Encode()),
		kind("application/x-www-form-urlencoded"))
	var parts bytes.Buffer
	writer := multipart.NewWriter(&parts)
	check(writer.WriteField("key", key))
	check(writer.Close())
	send("multipart", "POST", "/multipart", &parts, kind(writer.FormDataContentType()))

	version := strings.TrimPrefix(runtime.Version(), "go")
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{"version": version, "results": results}))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
