"""Self-contained HTML pages: plain values in, one file out that opens without a network and prints well.

    html = render_domain_report(page, heading, domains, families)
    write_page(page, html)

`page` is where the page will lie; links to pictures are made relative to it. The values stand in `model`, the pages in
`reports`, what they share in `render`.
"""
