"""Texts in, the contract's predictions out: tokenise, window, batch, run, merge, decode.

The one path that evaluation measures and the API serves.
"""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from data.contract import Prediction
from data.manifest import Manifest, read_manifest
from serving.batching.planner import TOKEN_BUDGET, run_in_batches
from serving.engines.choice import choose_engine, make_engine
from serving.engines.protocol import Engine, Outputs
from serving.engines.tuned import Chosen
from serving.logits import Logits
from serving.model_folder import MODEL_KIND, ModelSpec, read_spec
from serving.predictions import ProbabilityArrays, probabilities, to_predictions
from serving.windows import (
    Windows,
    merge_outputs,
    merge_windows,
    special_token_id,
    split_into_windows,
)


class Analyzer:
    """A model folder with an engine around it. Safe to call from several threads at once."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        engine: Engine,
        spec: ModelSpec,
        manifest: Manifest,
        *,
        chosen: Chosen | None = None,
    ):
        """Wrap parts that belong together; ``load_analyzer`` does so from a folder."""
        self.tokenizer = tokenizer
        # A diner who types "[SEP]" typed five characters, not the end of a window.
        self.tokenizer.encode_special_tokens = True
        self.pad_id = special_token_id(tokenizer, "[PAD]")
        self.engine = engine
        self.spec = spec
        self.manifest = manifest
        self.chosen = chosen

    def windows(self, texts: Sequence[str]) -> Windows:
        """The windows that the texts are read in."""
        return split_into_windows(
            self.tokenizer,
            texts,
            max_tokens=self.spec.max_tokens,
            overlap_tokens=self.spec.overlap_tokens,
        )

    def logits(self, windows: Windows, *, token_budget: int = TOKEN_BUDGET) -> Logits:
        """Logits, one row per window, in the windows' order."""
        return Logits(
            **run_in_batches(self.engine, windows.ids, self.pad_id, token_budget=token_budget)
        )

    def answers(self, outputs: Outputs, windows: Windows) -> list[Prediction]:
        """The contract's predictions, one per text; see ``TextModel.answers``."""
        merged = Logits(**merge_outputs(outputs, windows))
        arrays = probabilities(merged, self.spec.temperatures)
        return to_predictions(arrays, windows.per_text, self.spec)

    def probabilities(self, texts: Sequence[str]) -> ProbabilityArrays:
        """Calibrated probabilities as arrays, one row per text."""
        windows = self.windows(texts)
        return probabilities(merge_windows(self.logits(windows), windows), self.spec.temperatures)

    def analyze(self, texts: Sequence[str]) -> list[Prediction]:
        """The contract's predictions, in the texts' order; an empty list for no texts.

        Raises:
            EngineError: the engine failed or answered with values that are not finite.
        """
        if not texts:
            return []
        windows = self.windows(texts)
        return self.answers(self.logits(windows).named(), windows)


def load_analyzer(folder: Path, *, engine: str | None = None, threads: int = 1) -> Analyzer:
    """Load a model folder, hashes checked.

    Args:
        folder: a model folder (serving/model_folder.py).
        engine: of ``serving.engines.choice.ENGINES``, or ``plain`` for the one that the folder's
            format names; None takes what ``make tune-engine`` chose for this model on this
            machine, else the plain one.
        threads: compute threads of the engine.

    Raises:
        ArtifactError: a file is missing or altered.
        EngineError: there is no such engine, or it cannot load the model.
    """
    manifest = read_manifest(folder, MODEL_KIND)
    spec = read_spec(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    chosen = choose_engine(folder, manifest.digest, engine, threads)
    made = make_engine(chosen.engine, folder, threads=threads)
    return Analyzer(tokenizer, made, spec, manifest, chosen=chosen)
