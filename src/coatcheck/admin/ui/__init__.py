"""The page: the same services as the API, drawn on the server; a browser needs nothing but HTML.

    site       what stands round the routes: state of the page, problems as pages
    render     templates; show, svg, yamltext make what they are given fit to be seen
    notes      what is said once after a change
    forms      what was wrong, beside the field that it concerns
    log_in, secret_list, secret_pages, secret_forms, activity_pages, policy_pages, proxy_pages,
    token_pages, files      the routes

Three rules hold for all of it. No value comes back: not into a field, an attribute or a URL, not
even after a mistake. Whatever is displayed is escaped, and characters that cannot be seen are spelt
out. Each form works without JavaScript: it posts, and what was changed is shown after a redirect.
"""
