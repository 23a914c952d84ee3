// As python_client.py, with java.net.http.HttpClient. Proxy and trust store come from
// JAVA_TOOL_OPTIONS; a proxy's password never does. An Authenticator would do, but a client that has
// one drops an Authorization field that is set by hand (seen with JDK 17); a Proxy-Authorization
// field set by hand goes to the proxy alone, with its CONNECT, and leaves the other as it is.
//
//     java Client.java BASE_URL PLACEHOLDER
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

public class Client {
    public static void main(String[] arguments) throws Exception {
        URI base = URI.create(arguments[0]);
        String key = arguments[1];
        String[] user = URI.create(System.getenv("HTTPS_PROXY")).getUserInfo().split(":", 2);
        String credential = Base64.getEncoder()
            .encodeToString((user[0] + ":" + user[1]).getBytes(StandardCharsets.UTF_8));
        HttpClient client = HttpClient.newHttpClient();
        Map<String, HttpRequest.Builder> requests = new LinkedHashMap<>();
        requests.put("header", at(base, "/header", null).header("Authorization", "Bearer " + key));
        String token = Base64.getEncoder()
            .encodeToString(("user:" + key).getBytes(StandardCharsets.UTF_8));
        requests.put("basic", at(base, "/basic", null).header("Authorization", "Basic " + token));
        requests.put("own-header", at(base, "/own-header", null).header("X-Api-Key", key));
        requests.put("query", at(base, "/query", "b=1+2&key=" + key));
        requests.put("path", at(base, "/path/" + key + "/x", null));
        requests.put("json", at(base, "/json", null)
            .header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString("{\"key\": \"" + key + "\"}")));
        requests.put("form", at(base, "/form", null)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .POST(BodyPublishers.ofString(
                "b=%C3%BC&key=" + URLEncoder.encode(key, StandardCharsets.UTF_8))));

        List<String> results = new ArrayList<>();
        for (var request : requests.entrySet()) {
            var built = request.getValue().header("Proxy-Authorization", "Basic " + credential);
            var answer = client.send(built.build(), BodyHandlers.ofString());
            results.add(quote(request.getKey()) + ": [" + answer.statusCode() + ", "
                + quote(answer.body()) + "]");
        }
        System.out.println("{\"version\": " + quote(System.getProperty("java.version"))
            + ", \"results\": {" + String.join(", ", results) + "}}");
        System.exit(0);
    }

    /** The constructor of several parts escapes; URI.create would throw at a brace. */
    private static HttpRequest.Builder at(URI base, String path, String query) throws Exception {
        String whole = base.getPath() + path;
        return HttpRequest.newBuilder(
            new URI(base.getScheme(), base.getAuthority(), whole, query, null));
    }

    private static String quote(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            out.append(c < ' ' || c == '"' || c == '\\' || c > '~'
                ? String.format("\\u%04x", (int) c) : String.valueOf(c));
        }
        return out.append('"').toString();
    }
}
