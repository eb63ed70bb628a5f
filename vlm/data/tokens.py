"""Tokenizers: text to ids and back. User text never becomes a special token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

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

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenizers that cut every text alike."""
        return hashlib.sha256(self._engine().to_str().encode()).hexdigest()[:16]

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

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.engine is not None:  # a copied engine forgets the switch: data workers get copies
            self._use(self.engine)

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
                f"text_characters: {text[:60]!r} has characters outside llm.tokenizer.alphabet: {''.join(unknown)!r}; "
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


class FolderTokenizer(TextTokenizer):
    """The tokenizer.json of a folder in Hugging Face's form, read without its library.

    names: "bos_token" -> "<s>" and so on, as the folder's settings give them.
    added: id -> content of all added tokens.   specials: contents of the special ones among them.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.describe(path)
        self.load(Path(path) / "tokenizer.json")
        self.names = _special_names(Path(path))

    @staticmethod
    def describe(path: str) -> int:
        """One more than the highest id."""
        found = _read_json(Path(path), "tokenizer.json")
        if found is None:
            raise Mismatch(
                "path",
                f"{path} has no tokenizer.json; write one there with transformers: "
                f"AutoTokenizer.from_pretrained({path!r}).save_pretrained({path!r})",
            )
        try:
            entries = found["model"]["vocab"]
            last = max(entries.values()) if isinstance(entries, dict) else len(entries) - 1
            return 1 + max([last, *(token["id"] for token in found["added_tokens"])])
        except (KeyError, TypeError, ValueError) as error:
            raise Mismatch("path", f"{path}/tokenizer.json is no tokenizer ({error!r}); copy it again") from error

    def markup(self, text: str) -> Encoding:
        """Ids and places of a text in which names of special tokens are obeyed."""
        engine = self._engine()
        engine.encode_special_tokens = False
        try:
            return engine.encode(text, add_special_tokens=False)
        finally:
            engine.encode_special_tokens = True

    def _use(self, engine: Tokenizer) -> None:
        engine.no_truncation()
        engine.no_padding()
        tokens = engine.get_added_tokens_decoder()
        self.added = {id: token.content for id, token in tokens.items()}
        self.specials = [token.content for token in tokens.values() if token.special]
        super()._use(engine)


def _read_json(folder: Path, name: str) -> Any:
    """None if the file is not there."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Mismatch("path", f"{folder / name} cannot be read ({error}); copy it again") from error


def _special_names(folder: Path) -> dict[str, str]:
    """As a chat template sees them; what tokenizer_config.json says goes before special_tokens_map.json."""
    names: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in (_read_json(folder, file) or {}).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                names[key] = text
    return names
