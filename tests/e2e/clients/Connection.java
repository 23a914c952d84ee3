// As Client.java, with java.net.HttpURLConnection. It sends braces in a URL as they are.
//
//     java Connection.java BASE_URL PLACEHOLDER
import java.io.InputStream;
import java.net.Authenticator;
import java.net.HttpURLConnection;
import java.net.PasswordAuthentication;
import java.net.URI;
import java.net.URL;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;

public class Connection {
    private static final List<String> results = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        String base = arguments[0];
        String key = arguments[1];
        String[] user = URI.create(System.getenv("HTTPS_PROXY")).getUserInfo().split(":", 2);
        Authenticator.setDefault(new Authenticator() {
            @Override
            protected PasswordAuthentication getPasswordAuthentication() {
                return getRequestorType() == RequestorType.PROXY
                    ? new PasswordAuthentication(user[0], user[1].toCharArray())
                    : null;
            }
        });
        String token = Base64.getEncoder()
            .encodeToString(("user:" + key).getBytes(StandardCharsets.UTF_8));
        send("header", base + "/header", "Authorization", "Bearer " + key, null);
        send("basic", base + "/basic", "Authorization", "Basic " + token, null);
        send("own-header", base + "/own-header", "X-Api-Key", key, null);
        send("query", base + "/query?b=1+2&key=" + key, null, null, null);
        send("path", base + "/path/" + key + "/x", null, null, null);
        send("json", base + "/json", "Content-Type", "application/json", "{\"key\":\"" + key + "\"}");
        send("form", base + "/form", "Content-Type", "application/x-www-form-urlencoded",
            "b=%C3%BC&key=" + URLEncoder.encode(key, StandardCharsets.UTF_8));
        System.out.println("{\"version\": " + quote(System.getProperty("java.version"))
            + ", \"results\": {" + String.join(", ", results) + "}}");
        System.exit(0);
    }

    private static void send(String place, String url, String name, String value, String body)
            throws Exception {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        if (name != null) {
            connection.setRequestProperty(name, value);
        }
        if (body != null) {
            connection.setDoOutput(true);
            connection.getOutputStream().write(body.getBytes(StandardCharsets.UTF_8));
        }
        int status = connection.getResponseCode();
        try (InputStream said =
                status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            String text = new String(said.readAllBytes(), StandardCharsets.UTF_8);
            results.add(quote(place) + ": [" + status + ", " + quote(text) + "]");
        }
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
