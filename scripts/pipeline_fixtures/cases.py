"""The calls whose results are recorded, task by task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline_fixtures.texts import (
    ARABIC,
    CHINESE,
    COMBINING,
    EMOJI,
    ENGLISH,
    FRENCH,
    GERMAN,
    LONG,
    MIDDLE,
    QUERIES,
    QUESTIONS_AND_CONTEXTS,
    TABLES,
)

Case = dict[str, Any]
Options = dict[str, Any]
QUESTION_MODELS = ("bert", "distilbert", "roberta", "xlm-roberta-left", "albert")
SENTENCES = (ENGLISH[1], GERMAN[0], CHINESE[1], ARABIC[0], EMOJI[0], COMBINING[0])


def call(
    model: str,
    task: str,
    *inputs: Any,
    pipeline_arguments: dict[str, Any] | None = None,
    **call_arguments: Any,
) -> Case:
    """One case: `pipeline(task, model, **pipeline_arguments)(*inputs, **call_arguments)`."""
    return {
        "model": model,
        "task": task,
        "pipeline_arguments": pipeline_arguments or {},
        "inputs": list(inputs),
        "call_arguments": call_arguments,
    }


def question_answering() -> Iterator[Case]:
    """Windows, alignment to words, impossible answers, ways to give questions and contexts, errors."""
    for number, model in enumerate(QUESTION_MODELS):
        for case in (*_one_window(number), *_windows(number), *_several(number)):
            options, creation = case
            yield call(model, "question-answering", pipeline_arguments=creation, **options)
        yield from _positional(model)
    for options in _bad_questions():
        yield call("bert", "question-answering", **options)


# Keyword arguments of the call, and of the pipeline.


def _one_window(number: int) -> Iterator[tuple[Options, Options]]:
    for place, (question, context) in enumerate(QUESTIONS_AND_CONTEXTS):
        text = {"question": question, "context": context}
        yield text, {}
        yield text | {"top_k": (3, 10)[place % 2], "align_to_words": bool((place // 2 + number) % 2)}, {}
        yield text | {"top_k": (3, 1, 5)[place % 3], "handle_impossible_answer": True}, {}
        if place % 5 == number % 5:
            yield text | {"max_answer_len": 1, "top_k": 4}, {}
            yield text | {"max_answer_len": 3, "top_k": 3, "align_to_words": False}, {}
            yield text | {"max_question_len": 2}, {}
            yield text | {"padding": "max_length", "max_seq_len": 128, "top_k": 2}, {}
            yield text, {"top_k": 2, "handle_impossible_answer": True, "max_answer_len": 5}


def _windows(number: int) -> Iterator[tuple[Options, Options]]:
    lengths = ((32, 4), (40, 10), (48, 20), (64, 16), (64, None), (96, 8))
    texts = (
        ("Where do I live?", LONG),
        ("Wie alt?", LONG),
        ("长城是什么?", MIDDLE + CHINESE[0]),
        ("😀 é", LONG),
    )
    for place, (length, stride) in enumerate(lengths):
        for shift, (question, context) in enumerate(texts):
            if (place + shift + number) % 2:
                continue
            text = {"question": question, "context": context, "max_seq_len": length}
            text |= {} if stride is None else {"doc_stride": stride}
            top = (1, 3, 10)[(place + shift // 2 + number) % 3]
            yield text | {"top_k": top, "handle_impossible_answer": bool(shift % 2)}, {}
            yield text | {"top_k": top, "align_to_words": bool((place + number) % 2), "max_answer_len": 6}, {}
    yield {"question": "Where do I live?", "context": LONG, "top_k": 3}, {}
    yield {"question": "Where?", "context": LONG, "max_seq_len": 48, "doc_stride": 8, "batch_size": 2}, {}
    yield (
        {
            "question": "Where?",
            "context": MIDDLE,
            "max_seq_len": 40,
            "padding": "max_length",
            "doc_stride": 4,
        },
        {},
    )


def _several(number: int) -> Iterator[tuple[Options, Options]]:
    chosen = [QUESTIONS_AND_CONTEXTS[(number + step) % 9] for step in (0, 2, 5)]
    questions, contexts = ([pair[side] for pair in chosen] for side in (0, 1))
    yield {"question": questions, "context": contexts}, {}
    yield {"question": questions, "context": contexts, "top_k": 2}, {}
    yield {"question": questions, "context": contexts[0]}, {}
    yield {"question": questions[:1], "context": contexts[:1]}, {}
    if number in (0, 2):
        yield {"question": questions, "context": contexts, "batch_size": 2}, {}
        windows = {"max_seq_len": 40, "doc_stride": 8, "top_k": 2}
        yield {"question": questions, "context": [LONG, contexts[0], MIDDLE]} | windows, {}
        yield {"question": questions, "context": contexts, "handle_impossible_answer": True}, {"top_k": 3}


def _positional(model: str) -> Iterator[Case]:
    first, second = (
        dict(zip(("question", "context"), pair, strict=True)) for pair in QUESTIONS_AND_CONTEXTS[:2]
    )
    task = "question-answering"
    yield call(model, task, first)
    yield call(model, task, [first, second])
    yield call(model, task, first, second, top_k=2)
    yield call(model, task, [first])
    yield call(model, task, first["question"], first["context"])


def _bad_questions() -> Iterator[dict[str, Any]]:
    fine = {"question": "Who?", "context": ENGLISH[1]}
    yield from ({"question": "Who?", "context": text} for text in ("", None, ["a"], 3))
    yield from ({"question": text, "context": ENGLISH[1]} for text in ("", None, 3))
    yield from ({"question": ["Who?", ""], "context": ENGLISH[1]}, {"question": ["a", "b"], "context": ["a"]})
    yield from ({"question": "Who?"}, {"context": "Clara"}, {}, {"question": [], "context": []})
    yield from ({"question": "   ", "context": ENGLISH[1]}, {"question": "Who?", "context": " \n "})
    yield from (fine | options for options in ({"top_k": 0}, {"max_answer_len": 0}, {"top_k": -1}))
    yield fine | {"doc_stride": 50, "max_seq_len": 40}
    yield {"question": "Who?", "context": LONG, "max_seq_len": 24, "doc_stride": 23}
    yield {"question": LONG, "context": ENGLISH[1], "max_seq_len": 32, "doc_stride": 4}
    yield {"question": LONG, "context": ENGLISH[1], "max_question_len": 8}
    yield {"question": "Who?", "context": LONG + LONG + LONG, "max_seq_len": 400}


def summarization() -> Iterator[Case]:
    """Lengths, beams, ways to give texts, tensors and cleaning, truncation."""
    for number, model in enumerate(("bart-summarization", "bart", "t5", "pegasus")):
        task = "summarization"
        for text in (*SENTENCES, MIDDLE, ENGLISH[0] + "\n\n  " + FRENCH[0], ""):
            yield call(model, task, text)
        for options in _generation(number):
            yield call(model, task, MIDDLE, **options)
        yield from _several_texts(model, task)
        yield call(model, task, LONG, truncation=True)
        yield call(model, task, LONG, truncation="only_first", max_length=9, min_length=2)
        yield call(model, task, MIDDLE, pipeline_arguments={"min_length": 2, "max_length": 7})
        yield call(model, task, MIDDLE, pipeline_arguments={"max_length": 30}, max_length=8, min_length=1)
        yield call(model, task, MIDDLE, max_length=5, min_length=9)
    for value in (None, 3, ["a", 3], [], [["a", "b"]], {"text": "a"}):
        yield call("bart-summarization", "summarization", value)
    yield call("bart-summarization", "summarization")
    yield call("bart-summarization", "summarization", "a", no_such_option=1)


def text2text_generation() -> Iterator[Case]:
    """Beams, several sequences, return types, ways to give texts."""
    for number, model in enumerate(("t5", "bart", "bart-summarization")):
        task = "text2text-generation"
        for text in (*SENTENCES, "question: Where? context: " + ENGLISH[1], LONG, ""):
            yield call(model, task, text, max_new_tokens=12)
        yield call(model, task, SENTENCES[0])
        for options in _generation(number):
            yield call(model, task, ENGLISH[1], **{"max_new_tokens": 10} | options)
        for beams, sequences in ((2, 2), (4, 3), (4, 4)):
            options = {"num_beams": beams, "num_return_sequences": sequences, "max_new_tokens": 8}
            yield call(model, task, ENGLISH[2], **options)
            yield call(model, task, [ENGLISH[2], GERMAN[1]], **options)
            yield call(model, task, [ENGLISH[2], GERMAN[1]], batch_size=2, **options)
            yield call(model, task, ENGLISH[2], return_tensors=True, **options)
        yield from _several_texts(model, task, max_new_tokens=9)
        yield call(model, task, ENGLISH[3], stop_sequence=" the", max_new_tokens=16)
        yield call(model, task, ENGLISH[3], num_beams=2, num_return_sequences=3)
    for value in (0, 1):
        yield call("t5", "text2text-generation", "a", return_type=value, max_new_tokens=4)
    for value in (None, 3, [["a", "b"], ["c", "d"]], ["a", None]):
        yield call("t5", "text2text-generation", value, max_new_tokens=4)


def _generation(number: int) -> Iterator[dict[str, Any]]:
    yield {"max_length": 12}
    yield {"max_length": 10, "min_length": 8}
    yield {"max_new_tokens": 6}
    yield {"max_new_tokens": 9, "min_new_tokens": 7}
    yield {"num_beams": 1, "max_new_tokens": 15}
    yield {"num_beams": 1, "max_length": 11, "repetition_penalty": 1.4}
    yield {"num_beams": 5, "length_penalty": (0.5, 2.0)[number % 2], "max_length": 13}
    yield {"num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 2, "max_length": 14}
    yield {"do_sample": False, "max_length": 9}
    yield {"return_tensors": True, "max_length": 12}
    yield {"return_tensors": False, "max_length": 12}
    yield {"return_text": False, "max_length": 12}
    yield {"return_text": True, "return_tensors": True, "max_length": 8}
    yield {"clean_up_tokenization_spaces": True, "max_length": 18}
    yield {"clean_up_tokenization_spaces": False, "max_length": 18}


def _several_texts(model: str, task: str, **options: Any) -> Iterator[Case]:
    yield call(model, task, list(SENTENCES[:3]), **options)
    yield call(model, task, list(SENTENCES), batch_size=2, **options)
    yield call(model, task, list(SENTENCES), batch_size=8, **options)
    yield call(model, task, list(SENTENCES[:4]), pipeline_arguments={"batch_size": 3}, **options)
    yield call(model, task, [SENTENCES[4]], **options)
    yield call(model, task, list(SENTENCES[:2]), return_tensors=True, **options)
    yield call(model, task, [list(SENTENCES[:2])], **options)
    yield call(model, task, *SENTENCES[:2], **options)


LANGUAGES = {
    "mbart": (("en_XX", "ro_RO"), ("de_DE", "en_XX"), ("ar_AR", "zh_CN"), ("fr_XX", "fr_XX")),
    "mbart50": (("en_XX", "fr_XX"), ("he_IL", "de_DE"), ("zh_CN", "en_XX"), ("hi_IN", "gl_ES")),
    "nllb": (
        ("eng_Latn", "fra_Latn"),
        ("deu_Latn", "zho_Hans"),
        ("arb_Arab", "eng_Latn"),
        ("zul_Latn", "ace_Arab"),
    ),
    "m2m100": (("en", "fr"), ("de", "zh"), ("ar", "en"), ("zu", "af")),
}


def translation() -> Iterator[Case]:
    """Prefixes, languages by task name or by argument, target tokens in the text."""
    yield from _translation_by_prefix()
    yield from _translation_by_text()
    for number, (model, pairs) in enumerate(LANGUAGES.items()):
        yield from _translation_by_languages(number, model, pairs)


def _translation_by_prefix() -> Iterator[Case]:
    for task in (
        "translation_en_to_fr",
        "translation_en_to_de",
        "translation_en_to_ro",
        "translation_fr_to_en",
    ):
        for text in SENTENCES:
            yield call("t5", task, text, **({"max_length": 20} if task.endswith("en") else {}))
    yield call("t5", "translation_en_to_fr", MIDDLE, truncation=True)
    for options in _generation(1):
        yield call("t5", "translation_en_to_fr", ENGLISH[1], **options)
    yield from _several_texts("t5", "translation")
    yield call("t5", "translation", ENGLISH[1], src_lang="en", tgt_lang="de", max_length=12)
    yield call("t5", "translation_en_fr", ENGLISH[1])
    yield call("t5", "translation_en_to_fr_now", ENGLISH[1], max_length=8)


def _translation_by_text() -> Iterator[Case]:
    for number, model in enumerate(("marian", "marian-multi")):
        for text in (*SENTENCES, FRENCH[0], ""):
            yield call(model, "translation", text)
        for options in _generation(number):
            yield call(model, "translation_en_to_fr", ENGLISH[2], **options)
        yield from _several_texts(model, "translation")
        yield call(model, "translation_en_to_fr", ENGLISH[4], num_return_sequences=2)
        yield call(model, "translation", ENGLISH[4], src_lang="en", tgt_lang="fr")
        for target in (">>fra<<", ">>deu<<", ">>zho_Hans<<", ">>xxx<<", ">>fra<<>>deu<<"):
            yield call(model, "translation", f"{target} {ENGLISH[0]}")
            yield call(model, "translation", f"{target}{GERMAN[1]}", num_beams=1)
        yield call(model, "translation", [f">>fra<< {ENGLISH[0]}", f">>deu<< {ENGLISH[1]}"], batch_size=2)
    for value in (None, 3, [["a", "b"]], ["a", None]):
        yield call("marian", "translation", value)


def _translation_by_languages(number: int, model: str, pairs: tuple[tuple[str, str], ...]) -> Iterator[Case]:
    task = "translation"
    for place, (source, target) in enumerate(pairs):
        languages = {"src_lang": source, "tgt_lang": target}
        for text in (*SENTENCES, "")[place % 2 :: 2]:
            yield call(model, task, text, **languages)
            yield call(model, task, text, pipeline_arguments=languages)
        yield call(model, task, ENGLISH[2], num_beams=1, max_length=9, **languages)
        yield call(model, task, list(SENTENCES), batch_size=2, **languages)
    languages = dict(zip(("src_lang", "tgt_lang"), pairs[0], strict=True))
    other = dict(zip(("src_lang", "tgt_lang"), pairs[1], strict=True))
    for options in _generation(number):
        yield call(model, task, ENGLISH[1], **options, **languages)
    yield from _several_texts(model, task, **languages)
    yield call(model, task, LONG + LONG, truncation=True, **languages)
    yield call(model, task, ENGLISH[1], pipeline_arguments=languages, **other)
    yield call(model, task, ENGLISH[1], num_return_sequences=2, **languages)
    yield call(model, task, ENGLISH[1])
    yield call(model, task, ENGLISH[1], src_lang=pairs[0][0])
    yield call(model, task, ENGLISH[1], tgt_lang=pairs[0][1])
    yield call(model, task, ENGLISH[1], src_lang="xx", tgt_lang=pairs[0][1])
    yield call(model, task, ENGLISH[1], src_lang=pairs[0][0], tgt_lang="xx")
    yield call(model, "translation_en_to_fr", ENGLISH[1])
    yield call(model, "translation_en_to_ro", ENGLISH[1])
    yield call(model, "translation_en_to_ro", ENGLISH[1], **languages)
    yield call(model, "translation_en_to_fr", ENGLISH[1], tgt_lang=pairs[0][1])
    yield call(model, "translation_XX_to_YY", ENGLISH[1], **languages)


BAD_TABLES: tuple[tuple[Any, Any], ...] = (
    *((None, "a"), ({}, "a"), ({"a": []}, "a"), ("text", "a")),
    *(({"a": ["1"]}, query) for query in ("", None, 3, [], [""], ["a", "b", "c"])),
    *(({"a": ["1"], "b": ["1", "2"]}, "a"), ({"a": [1, 2.5]}, "a"), ({"a": [None, "2"]}, "a")),
    ([["a", "b"], ["1", "2"]], "a"),
    ([{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], "a"),
)


def table_question_answering() -> Iterator[Case]:
    """Cells, aggregations, conversations, dropped rows, linearized tables, errors."""
    task = "table-question-answering"
    for model in ("tapas-wtq", "tapas-sqa", "tapex"):
        tapas = model.startswith("tapas")
        for name, table in TABLES.items():
            queries = list(QUERIES[name])
            for query in queries:
                yield call(model, task, table, query)
            yield call(model, task, table=table, query=queries)
            yield call(model, task, {"table": table, "query": queries[0]})
            yield call(model, task, {"table": table, "query": queries})
            yield call(model, task, table, queries[:1])
            yield call(model, task, table=table, query=queries[1], truncation=True)
            if tapas:
                yield call(model, task, table, queries, sequential=True)
                yield call(model, task, table, queries[0], sequential=True)
                yield call(model, task, table, queries[::-1], pipeline_arguments={"sequential": True})
                yield call(
                    model, task, table, queries[0], truncation="drop_rows_to_fit", padding="max_length"
                )
                yield call(model, task, table, queries, truncation="do_not_truncate")
                yield call(model, task, table, queries[0], truncation=False)
            else:
                for options in ({"truncation": "drop_rows_to_fit"}, {"truncation": "do_not_truncate"}):
                    yield call(model, task, table, queries[0], **options)
                yield call(model, task, table, queries[1], max_new_tokens=5)
                yield call(model, task, table, queries[1], pipeline_arguments={"num_beams": 1})
        yield from _several_tables(model)
    for table, query in BAD_TABLES:
        for model in ("tapas-wtq", "tapex"):
            yield call(model, task, table, query)
    yield call("tapas-wtq", task, [{"table": TABLES["actors"]}])
    yield call("tapas-wtq", task, [])
    yield call("tapas-wtq", task, {"query": "a"})


def _several_tables(model: str) -> Iterator[Case]:
    task = "table-question-answering"
    rows = [
        {"table": TABLES[name], "query": QUERIES[name][0]} for name in ("repositories", "actors", "one cell")
    ]
    yield call(model, task, rows)
    yield call(model, task, rows, batch_size=2)
    yield call(model, task, rows[:1])
    yield call(model, task, [rows[0] | {"query": list(QUERIES["repositories"])}, rows[1]])
    yield call(model, task, table=rows)


TASKS = {
    "question-answering": question_answering,
    "summarization": summarization,
    "translation": translation,
    "text2text-generation": text2text_generation,
    "table-question-answering": table_question_answering,
}
