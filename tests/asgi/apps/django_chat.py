"""Django with Channels: the consumers of its tutorial behind its routing, without a channel layer."""

import json

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests",
    INSTALLED_APPS=["channels"],
    LOGGING_CONFIG=None,
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer, WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from fastws.asgi import channels  # noqa: E402


class ChatConsumer(WebsocketConsumer):
    """The first one of the tutorial, which runs in threads."""

    def connect(self):
        self.accept()

    def receive(self, text_data):
        message = json.loads(text_data)["message"]
        self.send(text_data=json.dumps({"message": message}))


class AsyncConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        name = self.scope["url_route"]["kwargs"]["room_name"]
        if name == "private":
            await self.close()
            return
        await self.accept("v2" if "v2" in self.scope["subprotocols"] else None)
        await self.send(name)

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            await self.close(code=4123, reason="asked")
        else:
            await self.send(text_data, bytes_data)


class JsonConsumer(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.send_json({"echo": content})


class RoomConsumer(AsyncWebsocketConsumer):
    """What a channel layer is for, by the server's channels."""

    async def connect(self):
        await self.accept()
        channels(self.scope).subscribe("room")
        await self.send("subscribed")

    async def receive(self, text_data=None, bytes_data=None):
        channels(self.scope).broadcast("room", text_data, exclude="self")


def publish(request):
    """A plain view, which runs in a thread."""
    return JsonResponse({"reached": channels(request).broadcast("room", "from a view")})


urlpatterns = [path("publish/", publish)]
websocket_urlpatterns = [
    re_path(r"^ws/chat/(?P<room_name>\w+)/$", AsyncConsumer.as_asgi()),
    path("ws/sync/", ChatConsumer.as_asgi()),
    path("ws/json/", JsonConsumer.as_asgi()),
    path("ws/room/", RoomConsumer.as_asgi()),
]

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(URLRouter(websocket_urlpatterns)),
    }
)
