"""Django's own pages to log in and out; /session shows and changes the session, /password changes the password."""

import json

from django.contrib.auth import alogout, update_session_auth_hash
from django.contrib.auth.views import LoginView, LogoutView
from django.http import JsonResponse
from django.urls import path


def session(request):
    if request.method == "POST":
        request.session.update(json.loads(request.body))
    values = {name: value for name, value in request.session.items() if not name.startswith("_")}
    return JsonResponse({"user": request.user.get_username(), **values})


def flush(request):
    request.session.flush()
    return JsonResponse({})


async def leave(request):
    await alogout(request)
    return JsonResponse({})


def password(request):
    """All other sessions of the user end."""
    request.user.set_password(json.loads(request.body)["password"])
    request.user.save()
    update_session_auth_hash(request, request.user)
    return JsonResponse({})


urlpatterns = [
    path("accounts/login/", LoginView.as_view()),
    path("accounts/logout/", LogoutView.as_view()),
    path("session", session),
    path("flush", flush),
    path("leave", leave),
    path("password", password),
]
