"""An S3 server for tests: moto, which checks signatures. It ends when its standard input does."""

import json
import os
import sys
import threading

from flask import request as current
from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.iam.access_control import IAMRequestBase
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *words):
        pass


class SignedAsSent(IAMRequestBase):
    """moto checks signatures of what werkzeug made of a URL; clients sign what they send."""

    made = IAMRequestBase._create_aws_request

    def as_sent(self):
        self._path = current.environ["RAW_URI"]
        return SignedAsSent.made(self)


IAMRequestBase._create_aws_request = SignedAsSent.as_sent


def user(name, allowed):
    iam = iam_backends[ACCOUNT]["aws"]
    iam.create_user("us-east-1", name)
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": allowed}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(name, "objects", json.dumps(policy))
    key = iam.create_access_key(name)
    return [key.access_key_id, key.secret_access_key]


def main():
    port, bucket, certificate, key = int(sys.argv[1]), *sys.argv[2:5]
    tls = (certificate, key) if certificate else None
    application = DomainDispatcherApplication(create_backend_app)
    server = None
    s3_backends[ACCOUNT]["aws"].create_bucket(bucket, "us-east-1")
    keys = user("tests", "*")
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    # One command a line, each answered by a line.
    for line in sys.stdin:
        if line.strip() == "open" and server is None:
            server = make_server(
                "127.0.0.1", port, application, threaded=True, request_handler=Handler, ssl_context=tls
            )
            threading.Thread(target=server.serve_forever, daemon=True).start()
        elif line.strip() == "close" and server is not None:
            server.shutdown()
            server.server_close()
            server = None
        print(json.dumps(keys), flush=True)
    os._exit(0)


main()
