"""Tokenizers: text to ids and back. User text never becomes a special token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.ranges import PositiveInt


class TextTokenizer:
    """A `tokenizers` engine with the handful of calls that the project needs.

    engine is None until `fit` or `load`; `ready` says so.
    """

    engine: Tokenizer | None = None

    @property
    def ready(self) -> bool:
        return self.engine is not None

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text: a special token's name inside it is spelled out, not obeyed."""
        return self._engine().encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._engine().decode(list(ids), skip_special_tokens=True)

    def special(self, name: str) -> int:
        """Id of a special token. Raises: InputError if the tokenizer has no such token."""
        found = self._engine().token_to_id(name)
        if found is None:
            raise InputError(f"the tokenizer has no token {name!r}; set llm.template.begin and .end to tokens it has")
        return found

    def fit(self, texts: Iterable[str]) -> None:
        """Learn from training texts; a tokenizer that needs no learning does nothing."""

    def save(self, path: Path) -> None:
        self._engine().save(str(path))

    def load(self, path: Path) -> None:
        """Raises: InputError for a file that is no tokenizer."""
        try:
            engine = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            if type(error) is not Exception:
                raise
            raise InputError(f"{path} is no tokenizer: {error}") from error
        self._use(engine)

    def _use(self, engine: Tokenizer) -> None:
        engine.encode_special_tokens = True
        self.engine = engine

    def _engine(self) -> Tokenizer:
        if self.engine is None:
            raise InputError(
                "this model has no tokenizer yet: it is learned from the training texts; train it, "
                "or load a folder with tokenizer.json"
            )
        return self.engine


class Characters(TextTokenizer):
    """One id a character of `alphabet`, in its order, then <bos> and <eos>."""

    def __init__(self, alphabet: str, size: PositiveInt) -> None:
        self.alphabet = alphabet
        names = [*alphabet, "<bos>", "<eos>"]
        engine = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<eos>"))
        engine.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")  # type: ignore[assignment]
        engine.decoder = decoders.Fuse()  # type: ignore[assignment]
        engine.add_special_tokens(["<bos>", "<eos>"])
        self._use(engine)

    @staticmethod
    def describe(alphabet: str, size: int) -> int:
        if len(set(alphabet)) != len(alphabet):
            raise Mismatch("alphabet", f"{alphabet!r} names a character twice")
        if size != len(alphabet) + 2:
            raise Mismatch("size", f"{size}, but {len(alphabet)} characters + <bos> + <eos> are {len(alphabet) + 2}")
        return size

    def encode(self, text: str) -> list[int]:
        unknown = sorted(set(text) - set(self.alphabet))
        if unknown:
            raise InputError(
                f"{text[:60]!r} has characters outside llm.tokenizer.alphabet: {''.join(unknown)!r}; "
                "extend the alphabet, or choose an llm with another tokenizer"
            )
        return super().encode(text)


class TrainedBPE(TextTokenizer):
    """Byte-level BPE of at most `size` entries, learned from the training texts.

    Ids: <pad> 0, <bos> 1, <eos> 2, <unk> 3, then bytes and merges.
    """

    def __init__(self, size: PositiveInt, lowercase: bool) -> None:
        self.size, self.lowercase = size, lowercase

    @staticmethod
    def describe(size: int, lowercase: bool) -> int:
        if size < 4 + 256:
            raise Mismatch("size", f"{size}, but 256 bytes and 4 special tokens need at least 260")
        return size

    def fit(self, texts: Iterable[str]) -> None:
        engine = Tokenizer(models.BPE(unk_token="<unk>"))
        if self.lowercase:
            engine.normalizer = normalizers.Sequence(  # type: ignore[assignment]
                [normalizers.NFC(), normalizers.Lowercase()]
            )
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
        engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=self.size,
            special_tokens=["<pad>", "<bos>", "<eos>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        engine.train_from_iterator(texts, trainer)
        self._use(engine)
