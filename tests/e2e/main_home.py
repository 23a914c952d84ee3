"""The secrets and the policy of the proxy that most tests share."""

from __future__ import annotations

from tests.e2e.harness import CLIENTS, api_only

# Something in it is special to every place: a header, Basic, a URL, JSON, XML, a form, UTF-8.
SPECIAL_TEXT = 'p@ss "w&rd/%+=<ü>'
SPECIAL = SPECIAL_TEXT.encode()

# Two names that need the quoted form; the first survives in a URL as it is.
QUOTED = "crm/api!key"
QUOTED_ODD = 'crm api "key" ü&=?'

EVERYWHERE = SPECIAL
MAIN_SECRETS = {
    "crm.apiKey": api_only(EVERYWHERE),
    QUOTED: api_only(EVERYWHERE),
    QUOTED_ODD: api_only(EVERYWHERE),
    "cookie.session": api_only(b"session-8a1f00c2d3e4"),
    "wild.key": api_only(b"wildcard-5d0f12ab34", "*.example.test"),
    "port.key": api_only(b"other-port-77aa88bb", "api.example.test:8443"),
    "nowhere.key": (b"nowhere-11223344", ()),
    "roaming.key": (b"roaming-99887766", ("*",)),
    "narrow.key": api_only(b"narrow-445566778899"),
    "hosts.key": api_only(b"hosts-0a0b0c0d0e", "*.example.test"),
    "plain.key": api_only(b"plaintext-aabbccddee", "api.example.test", "api.example.test:80"),
    "crlf.key": api_only(b"line one\r\nX-Injected: yes"),
    "latin.key": api_only(b"latin-\xe9\xe8\xff-0102"),
    "colon.key": api_only(b"user:with:colons"),
    "boundary.key": api_only(b"x\r\n--BOUND\r\ny"),
    "nested.key": api_only(b"{{secrets.crm.apiKey}}"),
    "six.key": api_only(b"six-6a6b6c6d6e", "six.example.test"),
    "other.key": api_only(b"of-the-other-client-1357"),
    "ungranted.key": api_only(b"granted-to-nobody-2468"),
}

MAIN_POLICY = (
    CLIENTS
    + """
grants:
  - secrets: ["crm.*", "crm/*", "crm *", wild.key, port.key, nowhere.key, roaming.key, crlf.key,
              latin.key, colon.key, boundary.key, nested.key, six.key]
    clients: [runner, local]
    max_uses: 8
  - secrets: [cookie.session]
    clients: [runner]
    in: ["header:cookie"]
  - secrets: [narrow.key]
    clients: [runner]
    methods: [GET]
    paths: ["/echo/v1/**"]
    in: ["header:authorization", "query:key", "body:/client_secret"]
    max_uses: 2
  - secrets: [hosts.key]
    clients: [runner]
    hosts: ["other.example.test"]
  - secrets: [plain.key]
    clients: [runner]
    plaintext: true
  - secrets: [other.key]
    clients: [other]
placeholders:
  text_hosts: ["text.example.test"]
egress:
  deny: ["denied.example.test"]
"""
)
