"""A session (starsessions) for HTTP and sockets: POST /login/ann, then /ws/inbox; POST /logout closes every tab."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware, get_session_id

from fastws import Listener, Server, StoreSessions


async def log_in(request):
    request.session.update(user=request.path_params["user"], messages=0)
    return JSONResponse(request.session)


async def log_out(request):
    request.session.clear()
    return JSONResponse({"tabs": inbox.close_session(get_session_id(request))})


class Inbox(Listener):
    def on_handshake(self, request):
        request.user = request.session and request.session.get("user")
        return request.user is not None

    def on_message(self, ws, message):
        ws.session["messages"] += 1  # visible to HTTP and the other tabs from now on


store = InMemoryStore()
routes = [Route("/login/{user}", log_in, methods=["POST"]), Route("/logout", log_out, methods=["POST"])]
middleware = [Middleware(SessionMiddleware, store, lifetime=3600), Middleware(SessionAutoloadMiddleware)]
server = Server(http=Starlette(routes=routes, middleware=middleware))
inbox = server.endpoint("/ws/inbox", Inbox(), sessions=StoreSessions(store))

if __name__ == "__main__":
    server.run()
