"""The columns of the tables of a study of generated text (``docs/generation.md``)."""

from w2s_ray.store.column import INT, REAL, TEXT, Column, never_null

TEXT_RESULTS_SCHEMA_VERSION = 2
SAMPLES_SCHEMA_VERSION = 2

TEXT_AXES = (
    never_null("study", TEXT, "name of the study"),
    never_null("prompts", TEXT, "source of the prompts"),
    never_null("weak", TEXT, "name of the weak model"),
    never_null("strong", TEXT, "name of the strong model"),
    never_null("method", TEXT, "what the strong model learned from (docs/generation.md)"),
    Column("alpha", REAL, "", "α of contrastive decoding; null for methods without"),
    Column(
        "learning_rate_factor",
        REAL,
        "",
        "factor on the strong model's learning rates; null where it is not trained",
    ),
    never_null("seed", INT, "seed of sampling, adapters and row order"),
)

OF_SPLIT = (
    Column("rate", REAL, "fraction", "mean reward: over prompts, of the mean over samples"),
    Column("judged_prompts", INT, "prompts", "prompts with a reward"),
    Column("samples", INT, "samples", "samples asked for"),
    Column("failed_checks", INT, "samples", "samples without a reward; they count in no rate"),
    Column("empty", REAL, "fraction", "samples without text"),
    Column("cut_off", REAL, "fraction", "samples that had not ended at max_new_tokens"),
    Column("words", REAL, "words", "mean length"),
    Column("distinct_2", REAL, "fraction", "distinct bigrams of all bigrams of all samples"),
    Column("repeated_4grams", REAL, "fraction", "4-grams that stood earlier in the same sample"),
    Column(
        "log_ratio",
        REAL,
        "nat",
        "mean of log π - log π_ref of the answers at temperature 1, π_ref the model before its "
        "training, of proxy the strong model; their KL divergence only where they are sampled at "
        "temperature 1, top_p 1 and without penalty",
    ),
    Column(
        "audit_rate",
        REAL,
        "fraction",
        "mean verdict of the classifier that nothing is trained on; null without one, and of "
        "best_of_n",
    ),
    Column(
        "perplexity",
        REAL,
        "",
        "geometric mean of the answers' perplexities under evaluation.perplexity_model; null "
        "without one, and of best_of_n",
    ),
)
"""Scores of the split ``test``; those of ``transfer`` have that word in front."""

TEXT_RESULTS = (
    never_null("key", TEXT, "key of the cell's judge step"),
    *TEXT_AXES,
    never_null(
        "status",
        TEXT,
        "done: answers are sampled and judged; failed: one of these two steps failed; blocked: a "
        "step they depend on failed; pending: not finished yet",
    ),
    Column("error", TEXT, "", "the first error among the cell's steps, in one line; else null"),
    *OF_SPLIT,
    *(
        column._replace(
            name=f"transfer_{column.name}",
            description=f"of transfer: {column.description}",
        )
        for column in OF_SPLIT
    ),
    Column("weak_rate", REAL, "fraction", "rate of the aligned weak model"),
    Column("ceiling_rate", REAL, "fraction", "rate of the ceiling"),
    Column("pgr", REAL, "", "(rate - weak_rate) / (ceiling_rate - weak_rate)"),
    Column("seconds", REAL, "seconds", "of sampling the answers"),
    Column("tokens", INT, "tokens", "of the answers, on all test splits"),
    Column("train_seconds", REAL, "seconds", "of the training of the model that answers"),
    Column("trained_rows", INT, "rows", "answers, or pairs, that it was trained on"),
    Column(
        "left_out_rows",
        INT,
        "rows",
        "which it was not: answers that were empty or cut off, pairs of two answers of the same "
        "tokens",
    ),
    Column("align_pairs", INT, "pairs", "that aligned the weak model, and the ceiling"),
    Column("final_loss", REAL, "", "mean of its last ten losses"),
    never_null("samples_key", TEXT, "key of the step that sampled the answers"),
    Column("model_key", TEXT, "", "key of the step that trained the model; null: untrained"),
    never_null("weak_key", TEXT, "key of the judge step of the aligned weak model"),
    never_null("ceiling_key", TEXT, "key of the judge step of the ceiling"),
    Column("code_commit", TEXT, "", "git commit of the code that judged"),
    never_null("schema_version", INT, "version of this table's columns"),
)

SAMPLE_COLUMNS = (
    never_null("key", TEXT, "key of the cell's judge step, as in results"),
    never_null("split", TEXT, "test or transfer"),
    never_null("prompt_id", TEXT, "id of the prompt"),
    Column("family", TEXT, "", "what the prompt asks for; prompts of a family share a checker"),
    Column("topic", TEXT, "", "what it is about"),
    never_null("sample", INT, "number of the sample; of best_of_n the best one alone"),
    Column("prompt", TEXT, "", "the prompt"),
    Column("text", TEXT, "", "the answer; null: there is none"),
    Column("words", INT, "words", "its length"),
    Column("tokens", INT, "tokens", "its length, without the end token"),
    never_null("cut_off", INT, "1: it had not ended at max_new_tokens; else 0"),
    Column("reward", REAL, "fraction", "what the check gives, 0 to 1; null: it failed"),
    Column("error", TEXT, "", "why there is no text, or no reward"),
    Column(
        "audit_reward",
        REAL,
        "fraction",
        "what the classifier says that nothing is trained on; null: there is none",
    ),
    Column("log_prob", REAL, "nat", "log π of the answer and its end, at temperature 1"),
    Column(
        "log_prob_reference",
        REAL,
        "nat",
        "the same before training, of proxy under the strong model; null: not trained",
    ),
    Column(
        "outside_log_prob",
        REAL,
        "nat",
        "log p of its text after its prompt under evaluation.perplexity_model, without an end",
    ),
    Column("outside_tokens", INT, "tokens", "its length by that model's tokenizer"),
)
