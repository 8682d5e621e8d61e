"""What generated prompts are about; the last fifth appears in test prompts alone."""

TOPICS = (
    "rain", "bread", "bicycles", "the moon", "winter", "a quiet library", "football", "gardens",
    "cats", "trains", "coffee", "mountains", "the sea", "music at school",
    "a market in the morning", "homework", "bees", "old maps", "a birthday party", "robots",
    "chess", "honey", "a long walk", "the stars", "clocks", "rivers", "dogs", "soup",
    "a broken umbrella", "friendship", "kites", "elephants", "snow", "a night bus", "painting",
    "apples", "islands", "letters", "the desert", "swimming", "a small village", "tea",
    "birds in spring", "lighthouses", "cooking for friends", "volcanoes", "a lost key", "dancing",
    "the history of paper", "bridges", "a school trip", "glaciers", "photographs", "sleep",
    "a new neighbour", "tomatoes", "sailing", "the first day of work", "puppets", "thunder",
    "a wooden chair", "whales", "running", "mirrors", "the smell of books", "cheese",
    "a train station", "fireworks", "penguins", "learning a language", "caves", "buttons",
    "an empty beach", "weather forecasts", "owls", "pottery", "a family recipe", "tunnels",
    "sunflowers", "waiting in line",
)  # fmt: skip
TEST_TOPICS = TOPICS[-(len(TOPICS) // 5) :]
TRAIN_TOPICS = TOPICS[: len(TOPICS) - len(TEST_TOPICS)]
PHRASINGS = (
    "Write a short text about {topic}.",
    "Tell me something about {topic}.",
    "What comes to your mind when you think of {topic}?",
    "Describe {topic} to a child.",
    "Give me a few thoughts on {topic}.",
    "Why might someone care about {topic}?",
)
