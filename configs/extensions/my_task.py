"""An evaluation task of your own: the right one of several endings.

    gpt-jax eval RUN --extension configs/extensions/my_task.py --tasks endings --data DIR

DIR/endings.jsonl has a record a line: {"text": "The cat", "endings": [" sat", " is"], "right": 0}
"""

from gpt_jax.evaluate.tasks import Item, Task, register


def read(record):
    """Items of a record."""
    return [Item(record["text"], tuple(record["endings"]), record["right"])]


register(
    Task(
        name="endings",
        files=("endings.jsonl",),
        read=read,
        measure="raw",
        source="an example",
    )
)
