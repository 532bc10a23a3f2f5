# Cookies: what the Cookie header field holds (RFC 6265 4.2).

cdef object COOKIE_ESCAPE = compile_pattern(r"\\(?:([0-3][0-7]{2})|(.))").sub


cdef list parse_cookies(str header):
    """Returns (name, value) of every cookie, in the order sent."""
    cookies = []
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        name = name.strip()
        if equals and name:
            cookies.append((name, unquote_cookie(value.strip())))
    return cookies


cdef str unquote_cookie(str value):
    """Returns a cookie's value as it was before http.cookies quoted it, in linear time (CVE-2024-7592)."""
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        return value
    return COOKIE_ESCAPE(lambda match: chr(int(match[1], 8)) if match[1] else match[2], value[1:len(value) - 1])
