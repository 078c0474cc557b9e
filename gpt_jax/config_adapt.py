from typing import Literal

from gpt_jax.config_fields import section


@section
class AdaptConfig:
    """stub"""

    method: Literal["full"] = "full"
    """stub"""

    @property
    def draws(self):
        return False
