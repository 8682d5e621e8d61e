"""DuckDB queries that recompute the numbers of a page of generated text."""


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"


def _of_prompts(results: str, samples: str) -> str:
    """Mean reward of each prompt and cell, as a common table expression."""
    return f"""WITH per_prompt AS (
  SELECT r.prompts, r.weak, r.strong, r.method, r.alpha, r.learning_rate_factor,
         r.seed, s.prompt_id,
         avg(s.reward) AS reward
  FROM read_parquet({_quoted(samples)}) s JOIN read_parquet({_quoted(results)}) r USING (key)
  WHERE s.split = 'test' AND s.reward IS NOT NULL
  GROUP BY ALL
)"""


def rates_query(results: str, samples: str) -> str:
    """Rates of the test prompts."""
    return f"""{_of_prompts(results, samples)}, in_all_seeds AS (
  SELECT prompts, weak, strong, method, alpha, learning_rate_factor, prompt_id,
         avg(reward) AS reward, count(*) AS seeds
  FROM per_prompt GROUP BY prompts, weak, strong, method, alpha, learning_rate_factor, prompt_id
  QUALIFY seeds = max(seeds)
    OVER (PARTITION BY prompts, weak, strong, method, alpha, learning_rate_factor)
)
SELECT prompts, weak, strong, method, alpha, learning_rate_factor, avg(reward) AS rate,
       max(seeds) AS seeds
FROM in_all_seeds GROUP BY ALL ORDER BY ALL"""


def differences_query(results: str, samples: str, baseline: str) -> str:
    """Differences from a baseline, paired over prompts and seeds."""
    return f"""{_of_prompts(results, samples)}, in_all_seeds AS (
  SELECT a.weak, a.strong, a.method, a.alpha, prompt_id, avg(a.reward - b.reward) AS difference,
         count(*) AS seeds
  FROM per_prompt a JOIN per_prompt b USING (prompts, weak, strong, seed, prompt_id)
  WHERE b.method = {_quoted(baseline)} AND a.method <> b.method
  GROUP BY a.weak, a.strong, a.method, a.alpha, prompt_id
  QUALIFY seeds = max(seeds) OVER (PARTITION BY a.weak, a.strong, a.method, a.alpha)
)
SELECT weak, strong, method, alpha, avg(difference) AS difference
FROM in_all_seeds GROUP BY ALL ORDER BY ALL"""


def measures_query(results: str, samples: str) -> str:
    """Length, cut-offs, log-ratio and perplexity of the answers to test prompts."""
    return f"""SELECT r.weak, r.strong, r.method, r.alpha, r.learning_rate_factor,
       avg(s.words) AS words, avg(s.cut_off) AS cut_off,
       avg(s.log_prob - s.log_prob_reference) AS log_ratio,
       sum(s.log_prob - s.log_prob_reference)
         / sum(s.tokens + 1 - s.cut_off) FILTER (s.log_prob_reference IS NOT NULL) AS per_token,
       exp(avg(-s.outside_log_prob / s.outside_tokens)) AS perplexity
FROM read_parquet({_quoted(samples)}) s JOIN read_parquet({_quoted(results)}) r USING (key)
WHERE s.split = 'test' GROUP BY ALL ORDER BY ALL"""
