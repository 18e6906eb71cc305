"""Tornado with the same four features, each put in as its own manual says."""

import asyncio
import logging
import os

import sentry_sdk
import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.tornado import TornadoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from sentry_sdk.integrations.tornado import TornadoIntegration
from tornado.web import Application, RequestHandler

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ],
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    cache_logger_on_first_use=True,
)
log = structlog.get_logger("access")
duration = Histogram(
    "http_server_request_duration_seconds",
    "Duration of HTTP server requests.",
    ["method", "status", "handler"],
)


def log_request(handler: RequestHandler) -> None:
    request, seconds = handler.request, handler.request.request_time()
    status = handler.get_status()
    duration.labels(request.method, str(status), type(handler).__name__).observe(seconds)
    span = trace.get_current_span().get_span_context()
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=status,
        duration=seconds,
        client=request.remote_ip,
        trace_id=f"{span.trace_id:032x}",
        span_id=f"{span.span_id:016x}",
    )


class Bench(RequestHandler):
    def get(self, name: str) -> None:
        if name == "fail":
            raise RuntimeError("as it happens")
        self.finish({"message": "hello"})


class Metrics(RequestHandler):
    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest())


async def main() -> None:
    sentry_sdk.init(os.environ["SENTRY_DSN"], integrations=[TornadoIntegration()])
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    TornadoInstrumentor().instrument()
    routes = [(r"/bench/(?P<name>[^/]+)", Bench), (r"/metrics", Metrics)]
    application = Application(routes, log_function=log_request)
    application.listen(int(os.environ["PORT"]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
