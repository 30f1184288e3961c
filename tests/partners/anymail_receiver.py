"""A Django site with anymail's inbound webhook for Amazon SES. Argument: USER:PASSWORD.

Prints its port, and then a line of JSON for each mail that anymail passes on.
"""

import json
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

urlpatterns = []  # the site's: Django finds it by the name of this module


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def received(sender, event, esp_name, **_):
    mail = event.message
    found = {"esp": esp_name, "subject": mail.subject, "text": mail.text, "id": event.event_id}
    found |= {"from": mail.envelope_sender, "to": mail.envelope_recipient}
    print(json.dumps(found), flush=True)


def main(secret):
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="of a test",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["anymail"],
        ROOT_URLCONF=__name__,
        LOGGING_CONFIG=None,
        ANYMAIL={"WEBHOOK_SECRET": secret},
    )
    django.setup()
    from anymail.signals import inbound
    from django.core.wsgi import get_wsgi_application
    from django.urls import include, path

    urlpatterns.append(path("anymail/", include("anymail.urls")))
    inbound.connect(received)
    server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
