"""A Django project with users and sessions; what it stores is in the folder SHOP."""

import os
from pathlib import Path

FOLDER = Path(os.environ["SHOP"])

SECRET_KEY = "a secret of the shop, and long enough for it"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "tests.django.project.urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
LOGIN_FORM = "<form method='post'>{% csrf_token %}{{ form }}</form>"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "context_processors": ["django.template.context_processors.request"],
            "loaders": [
                ("django.template.loaders.locmem.Loader", {"registration/login.html": LOGIN_FORM}),
            ],
        },
    }
]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "shop.sqlite3", "OPTIONS": {"timeout": 20}}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # which takes no time
SESSION_FILE_PATH = str(FOLDER)
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "/session"
USE_TZ = True
LOGGING_CONFIG = None
