"""FastAPI under uvicorn with the same four features, each put in as its own manual says."""

import logging
import os
import sys

import sentry_sdk
import uvicorn
from fastapi import FastAPI
from loguru import logger
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_fastapi_instrumentator import Instrumentator


class Intercept(logging.Handler):
    """Sends what goes to `logging`, such as uvicorn's access log, to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        logger.opt(depth=6, exception=record.exc_info).log(record.levelname, message)


logging.basicConfig(handlers=[Intercept()], level=logging.INFO, force=True)
logger.remove()
logger.add(sys.stdout, serialize=True)

sentry_sdk.init(os.environ["SENTRY_DSN"])
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

app = FastAPI()
FastAPIInstrumentor.instrument_app(app)
Instrumentator().instrument(app).expose(app)


@app.get("/bench/{name}")
async def bench(name: str) -> dict[str, str]:
    if name == "fail":
        raise RuntimeError("as it happens")
    return {"message": "hello"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None)
