"""One session for HTTP and sockets: POST /login/ann, then connect to /ws/inbox; POST /logout closes all of her tabs.

It needs `pip install starlette starsessions`, too.
"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware
from starsessions.session import get_session_id, regenerate_session_id

from fastws import Listener, Server, StoreSessions


async def log_in(request):
    regenerate_session_id(request)  # so that nobody can hand a visitor an id that he knows himself
    request.session.update(user=request.path_params["user"], messages=0)
    return JSONResponse({"user": request.session["user"]})


async def log_out(request):
    request.session.clear()
    return JSONResponse({"tabs": inbox.close_session(get_session_id(request))})


class Inbox(Listener):
    def on_handshake(self, request):
        request.user = request.session and request.session.get("user")
        return request.user is not None

    def on_message(self, ws, message):
        ws.session["messages"] += 1  # seen by the next HTTP request, and in every other tab
        return {"messages": ws.session["messages"]}


store = InMemoryStore()
app = Starlette(
    routes=[Route("/login/{user}", log_in, methods=["POST"]), Route("/logout", log_out, methods=["POST"])],
    middleware=[Middleware(SessionMiddleware, store, lifetime=3600), Middleware(SessionAutoloadMiddleware)],
)
server = Server(http=app)
inbox = server.endpoint("/ws/inbox", Inbox(), sessions=StoreSessions(store))

if __name__ == "__main__":
    server.run()
