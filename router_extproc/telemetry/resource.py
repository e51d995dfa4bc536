"""Who we are, for everybody who gets our metrics and traces."""

from __future__ import annotations

import functools
import uuid

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)

from router_extproc import __version__


@functools.cache
def resource() -> Resource:
    """One per process. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to it, and go before what we say."""
    ours = {
        SERVICE_NAME: "router-extproc",
        SERVICE_VERSION: __version__,
        SERVICE_INSTANCE_ID: str(uuid.uuid4()),
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})
