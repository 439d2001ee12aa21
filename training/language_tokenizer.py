"""The tokenizer of a base made on the spot: byte-level BPE whose tokens are the words of answers.

Any text goes through it and comes back. What answers and turns repeat (a key of JSON with its
signs, a clause's number, a role) is one token, so that a small model spends its steps on what
differs: a review's labels are half as many tokens as with JSON's signs cut apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.prompts import chat_template
from data.targets import Example

SPECIAL_TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PAD, _, END = range(3)
# One piece: a word with its blank, a clause's number, a key of JSON with the signs around it.
_PIECES: Final = (
    r" ?[가-힣]+|[ㄱ-ㅎㅏ-ㅣ]+|#\d+|[\[\]{},\":]*[a-z_]+\":[\[{\"]*"
    r"| ?[A-Za-z_]+|-?\d+|[\[\]{}\",:]+|\s+|[^\s\w]|\w+"
)


def train_language_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ChatML's marks.

    Args:
        texts: prompts and answers.
        vocabulary: size wanted.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[PAD],
        eos_token=SPECIAL_TOKENS[END],
        chat_template=chat_template(),
    )


def tokenizer_texts(made_up: Sequence[Example], known: Sequence[Example]) -> Iterator[str]:
    """Turns and answers; of the training part the prompts alone, since answers are its labels."""
    for example in made_up:
        turns = [f"{each['role']}\n{each['content']}" for each in example.messages]
        yield "\n".join([*turns, f"assistant\n{example.answer}"])
    for example in known:
        if example.task == "labels":
            yield example.messages[-1]["content"]
