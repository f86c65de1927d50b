import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from classifier.bundle import PROMPT_PATH
from classifier.schema import load_schema
from training.corpus.build import add_arguments, build_from, describe
from training.corpus.rows import Row, RowError, Split, likeliest

CHAT_SPLITS: tuple[Split, ...] = ("train", "val")


class Command(BaseCommand):
    help = "Build the starter corpus: plain rows in OUT, and in OUT/chat the same as conversations for fine-tuning."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            corpus = build_from(Namespace(**options))
            for split in CHAT_SPLITS:
                written = write_chat(options["out"] / "chat" / f"{split}.jsonl", corpus.splits[split])
                self.stdout.write(f"chat/{split}.jsonl: {written} conversations")
        except (RowError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(describe(corpus))


def write_chat(path: Path, rows: Iterable[Row]) -> int:
    """Number of conversations written: rows of which no label is certain have none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    system = PROMPT_PATH.read_text(encoding="utf-8").strip()
    chats = [chat for row in sorted(rows, key=lambda row: row.id) if (chat := as_chat(row, system)) is not None]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats)
    return len(chats)


def as_chat(row: Row, system: str) -> dict[str, Any] | None:
    """The answer holds the known labels alone: an unknown one is never put into the model's mouth."""
    schema = load_schema()
    known = {name: value for name in schema.names if (value := likeliest(row.labels.get(name))) is not None}
    if not known:
        return None
    turns = (("system", system), ("user", row.text), ("assistant", schema.line(known)))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}
