"""What generated prompts ask to write about: short noun phrases that every model knows."""

TOPICS = tuple(
    topic.strip()
    for topic in """
a rainy day, a bakery, a bicycle, a birthday party, a blue whale, a bookshop, a bridge, a bus ride,
a campfire, a castle, a city park, a cup of tea, a dentist, a desert, a farm, a fire station,
a football match, a garden, a glass of water, a good friend, a grandmother, a guitar, a hammer,
a harbor, a haircut, a holiday, a honey bee, a hospital, a hot air balloon, a kitchen, a kite,
a lake, a library, a lighthouse, a lost key, a mirror, a mountain, a museum, a night train,
a noisy street, a paper boat, a pet cat, a picnic, a pirate, a pizza, a police officer, a poem,
a power cut, a puppet show, a quiet room, a rainbow, a recipe, a river, a robot, a rose,
a sailing boat, a school, a shopping list, a small island, a snowman, a space rocket, a spider,
a storm, a supermarket, a swimming pool, a teacher, a telephone, a thunderstorm, a toy shop,
a traffic jam, a tree house, a vegetable soup, a village, a violin, a volcano, a waiter, a wedding,
a windmill, a wolf, a wooden chair, a zoo, an airport, an alarm clock, an apple tree, an ant,
an autumn walk, an elephant, an elevator, an old map, an orchestra, an owl, an umbrella,
cheese, chess, chocolate, dreams, electricity, fog, friendship, gold, gravity, honesty, ice cream,
jazz music, maps of the world, morning coffee, new shoes, olive oil, paper, patience, rice,
salt, sleep, snow, soap, spring flowers, sunglasses, the circus, the color green, the future,
the first day of school, the full moon, the number seven, the ocean, the sun, time travel,
working from home
""".replace("\n", " ").split(",")
)
