import hmac
import json
import os
import time
from base64 import b64decode, b64encode
from http.cookies import SimpleCookie
from wsgiref.simple_server import make_server

gone: list[str] = []  # a table of your database, say


def decide(hook, user):  # None: no
    if hook["event"] == "connect":
        return {"user": user, "data": {"name": user.upper()}, "welcome": f"hello {user}"} if user else None
    if hook["event"] == "subscribe":
        return {"message": f"all about {hook['channel']}"} if hook["channel"] != "secret" else None
    if hook["event"] == "publish":
        return {"message": {"from": hook["connection"]["data"]["name"], "text": hook["message"]}}
    if hook["event"] == "call":
        return {"result": sum(hook["params"]) if hook["method"] == "add" else gone}
    gone.extend(event["connection"]["user"] for event in hook["events"] if event["type"] == "disconnected")
    return {}


def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    what, sent, signature = (environ.get(f"HTTP_WEBHOOK_{name}", "0") for name in ("ID", "TIMESTAMP", "SIGNATURE"))
    digest = hmac.digest(b64decode(os.environ["FASTWS_SECRET"][6:]), f"{what}.{sent}.".encode() + body, "sha256")
    signed = hmac.compare_digest(signature, "v1," + b64encode(digest).decode()) and abs(time.time() - int(sent)) < 300
    cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    answer = decide(json.loads(body), "user" in cookies and cookies["user"].value) if signed else None
    start_response("403 Forbidden" if answer is None else "200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


if __name__ == "__main__":  # FASTWS_SECRET=whsec_... python backend.py; or gunicorn backend:application
    make_server("127.0.0.1", int(os.environ.get("PORT", "8500")), application).serve_forever()
