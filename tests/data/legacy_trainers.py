import os
import time
from collections.abc import Iterator

import pydantic

import hpo


class Config(hpo.Config):
    x: float = pydantic.Field(ge=-10, le=10)
    y: float = pydantic.Field(0.0, ge=-10, le=10)
    epochs: int = pydantic.Field(6, ge=1)


@hpo.trainer("old_bowl", metrics={"loss": "minimize"})
def old_bowl(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    """Gradient descent on a bowl; configurations with x above 4 raise."""
    x, y = (run.checkpoint["x"], run.checkpoint["y"]) if run.checkpoint else (config.x, config.y)
    for _ in range(run.start_epoch, config.epochs):
        time.sleep(float(os.environ.get("BOWL_SECONDS", "0")))
        if config.x > 4:
            raise ValueError("x is above 4")
        x, y = 0.8 * x, 0.9 * y
        run.save({"x": x, "y": y})
        yield {"loss": x**2 + y**2}
