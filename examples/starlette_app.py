"""HTTP and sockets on one port, in one process: a POST to /news/sport goes to everybody at /ws/news/sport."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastws import Listener, Server


async def publish(request):
    channel = request.path_params["channel"]
    return JSONResponse({"readers": news.broadcast(channel, await request.body())})


async def readers(request):
    return JSONResponse(dict(news.channels))


app = Starlette(
    routes=[
        Route("/news", readers),
        Route("/news/{channel}", publish, methods=["POST"]),
    ]
)
server = Server(http=app)
news = server.endpoint("/ws/news/{channel}", Listener())

if __name__ == "__main__":
    server.run()
