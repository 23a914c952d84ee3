"""The management side: an API and a page, in a process of its own that cannot open a value.

    shield    host names, sizes, header fields: what holds for every request, before anything else
    gate      who asks: a token, a JWT, a session; nobody passes who is not named as public
    api/      the routes of the JSON API: requests in, typed calls, documents out
    ui/       the page: the same calls, drawn as HTML
    service   what can be done, and by which role; the API and the page call the same methods
    actions   the audit line of each change, written before it is made

It holds the public sealing key alone. A value that is handed in is sealed at once, and nothing in
here could turn it back (docs/decisions/0027).
"""
