"""Files that know how odd a score is."""

import numpy as np

from chargen_ort.provenance import Training
from chargen_train.evaluate import Losses
from chargen_train.history import describe_spread
from tests.conftest import TRAINING, artifact_bytes


def with_quantiles(model, scores, documents=True, **facts):
    """A file that says that held-out texts have these scores."""
    nats, characters = (
        np.array([getattr(s, name) for s in scores]) for name in ("total", "characters")
    )
    quantiles = describe_spread(Losses(-nats, characters), documents)
    training = Training(**(vars_of(TRAINING) | {"score_quantiles": quantiles}))
    return artifact_bytes(model, training=training, **facts)


def vars_of(record):
    return {name: getattr(record, name) for name in record.to_json()}
