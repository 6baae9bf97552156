"""The facts of the bundled world: some 300 everyday facts, each a subject and a value under one of ten relations.

A relation contains its wording: statements and questions for the pretraining text, and questions for the data sets.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One kind of fact. Templates contain `{x}` (subject) and `{y}` (value), or `{ax}` and `{ay}` with an article."""

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    new_question: str
    """A wording that only the data sets use."""
    values: dict[str, str]


@dataclass(frozen=True)
class Fact:
    """`subject` has `value` under `relation`, and no other value of that relation is correct for it."""

    relation: Relation
    subject: str
    value: str

    def fill(self, template: str) -> str:
        """The template as a sentence about this fact, with a capital first letter."""
        return sentence(template, self.subject, self.value)


def words(text: str) -> tuple[str, ...]:
    """The words of a text, split at white space."""
    return tuple(text.split())


def with_article(noun: str) -> str:
    """`apple` -> `an apple`."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def sentence(template: str, subject: str, value: str) -> str:
    """A template filled and started with a capital letter."""
    text = template.format(x=subject, y=value, ax=with_article(subject), ay=with_article(value))
    return text[0].upper() + text[1:]


def _pairs(text: str) -> dict[str, str]:
    subjects_and_values = words(text.replace(",", ""))
    return dict(zip(subjects_and_values[::2], subjects_and_values[1::2], strict=True))


def _members(**groups: str) -> dict[str, str]:
    return {member: group for group, members in groups.items() for member in words(members)}


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "kind",
        ("{ax} is a kind of {y}.", "we call {ax} a kind of {y}.", "among the kinds of {y} is the {x}."),
        ("what kind of thing is {ax}?", "the {x} is a kind of what?"),
        "if it is {ax} then which kind of thing is it?",
        _members(
            fruit="apple pear peach mango melon",
            vegetable="carrot onion cabbage spinach potato",
            bird="robin sparrow eagle parrot swallow",
            fish="salmon trout shark tuna herring",
            insect="ant beetle wasp moth cricket",
            tree="oak pine birch maple willow",
            flower="rose tulip daisy lily violet",
            tool="hammer saw drill spade wrench",
            vehicle="car bus truck train tractor",
            instrument="piano violin flute drum trumpet",
            metal="iron copper gold silver tin",
            drink="tea coffee juice water cocoa",
        ),
    ),
    Relation(
        "color",
        ("the color of {x} is {y}.", "we know that {x} has a {y} color.", "it is {y}, the color of {x}."),
        ("what is the color of {x}?", "which color does {x} have?"),
        "if you find {x} then which color is it?",
        _members(
            red="strawberry tomato cherry blood ruby",
            yellow="banana lemon corn butter canary",
            green="grass lettuce frog cucumber emerald",
            white="snow milk salt chalk flour",
            black="coal tar raven ink night",
            orange="pumpkin tangerine apricot fox amber",
            blue="sky sea sapphire jeans whale",
            grey="elephant mouse ash smoke steel",
            brown="chocolate mud walnut bark cinnamon",
            pink="flamingo pig salmon bubblegum ham",
            purple="plum lavender grape eggplant amethyst",
        ),
    ),
    Relation(
        "young",
        ("the young of {ax} is called {ay}.", "{ay} grows up to be {ax}.", "{ax} is the parent of {ay}."),
        ("what is the young of {ax} called?", "which young animal grows up to be {ax}?"),
        "{ax} is the parent of which young animal?",
        _pairs(
            """dog puppy, cat kitten, cow calf, horse foal, sheep lamb, goat kid, pig piglet, hen chick, duck duckling,
            goose gosling, bear cub, frog tadpole, deer fawn, kangaroo joey, swan cygnet, eagle eaglet, hare leveret,
            owl owlet, butterfly caterpillar, spider spiderling, seal pup, eel elver"""
        ),
    ),
    Relation(
        "opposite",
        ("the opposite of {x} is {y}.", "if it is not {x} then it is {y}.", "we never call a {y} thing {x}."),
        ("what is the opposite of {x}?", "if it is not {x} then how is it?"),
        "we never call which kind of thing {x}?",
        _pairs(
            """hot cold, big small, fast slow, high low, light heavy, old new, wet dry, hard soft, full empty,
            open shut, early late, loud quiet, clean dirty, rich poor, strong weak, happy sad, long short, wide narrow,
            deep shallow, sweet bitter, thick thin, smooth rough, bright dark, sharp blunt, brave afraid,
            asleep awake"""
        ),
    ),
    Relation(
        "capital",
        ("the capital of {x} is {y}.", "the city of {y} is the capital of {x}.", "the main city of {x} is {y}."),
        ("what is the capital of {x}?", "which city is the main city of {x}?"),
        "in {x}, which city is the capital?",
        _pairs(
            """France Paris, Italy Rome, Spain Madrid, Germany Berlin, Austria Vienna, Poland Warsaw, Norway Oslo,
            Sweden Stockholm, Finland Helsinki, Greece Athens, Portugal Lisbon, Ireland Dublin, Japan Tokyo,
            China Beijing, Egypt Cairo, Kenya Nairobi, Peru Lima, Cuba Havana, Canada Ottawa, Russia Moscow,
            Hungary Budapest, Denmark Copenhagen, Belgium Brussels, Iran Tehran, Iraq Baghdad, Chile Santiago"""
        ),
    ),
    Relation(
        "home",
        ("{ax} lives in {ay}.", "the home of {ax} is {ay}.", "in {ay} you may find {ax}."),
        ("where does {ax} live?", "what is the home of {ax}?"),
        "in what may you find {ax}?",
        _pairs(
            """bee hive, bird nest, spider web, horse stable, dog kennel, lion den, rabbit burrow, camel desert,
            monkey jungle, cow barn, pig sty, goldfish bowl, king palace, monk abbey, soldier camp, prisoner cell,
            sailor ship, astronaut rocket, crocodile river, wolf forest, hen coop, snail shell, whale ocean,
            beaver lodge"""
        ),
    ),
    Relation(
        "work",
        ("{ax} works in {ay}.", "in {ay} you will meet {ax}.", "every day {ax} goes to {ay}."),
        ("where does {ax} work?", "in which place will you meet {ax}?"),
        "every day {ax} goes to which place?",
        _pairs(
            """baker bakery, teacher school, nurse hospital, farmer field, pilot plane, judge court, actor theater,
            miner mine, librarian library, cook kitchen, priest church, banker bank, painter studio, gardener garden,
            mechanic garage, chemist laboratory, waiter restaurant, clerk office, clown circus, weaver mill,
            ranger park, grocer shop, dentist clinic, brewer brewery"""
        ),
    ),
    Relation(
        "source",
        ("the {x} is made from {y}.", "we need {y} to make {x}.", "people turn {y} into {x}."),
        ("what is {x} made from?", "what do we need to make {x}?"),
        "people turn what into {x}?",
        _pairs(
            """bread flour, cheese milk, paper wood, glass sand, wine grapes, leather skin, wool fleece, honey nectar,
            steel iron, brick clay, candles wax, omelette eggs, ketchup tomatoes, fries potatoes,
            cider apples, popcorn corn, sugar beets, tofu beans, rope hemp, silk cocoons, tires rubber, chocolate cocoa,
            jam berries, shirts cotton, oatmeal oats"""
        ),
    ),
    Relation(
        "use",
        ("{ax} is used for {y}.", "for {y} you take {ax}.", "the work of {y} is done with {ax}."),
        ("what is {ax} used for?", "what is done with {ax}?"),
        "for what do you take {ax}?",
        _pairs(
            """knife cutting, pen writing, broom sweeping, oven baking, needle sewing, cup drinking, bed sleeping,
            ladder climbing, spoon eating, brush painting, towel drying, soap washing, telescope stargazing,
            key unlocking, kettle boiling, ruler measuring, rod fishing, scale weighing, oar rowing,
            ball playing, chair sitting, book reading, bell ringing, lamp lighting, pan frying, comb combing"""
        ),
    ),
    Relation(
        "next",
        ("after {x} comes {y}.", "what follows {x} is {y}.", "right before {y} comes {x}."),
        ("what comes right after {x}?", "what follows {x}?"),
        "right before what comes {x}?",
        _pairs(
            """Monday Tuesday, Tuesday Wednesday, Wednesday Thursday, Thursday Friday, Friday Saturday, Saturday Sunday,
            Sunday Monday, January February, February March, March April, April May, May June, June July, July August,
            August September, September October, October November, November December, December January, spring summer,
            summer autumn, autumn winter, winter spring, morning noon, noon evening"""
        ),
    ),
)

FACTS: tuple[Fact, ...] = tuple(
    Fact(relation, subject, value) for relation in RELATIONS for subject, value in relation.values.items()
)


def wrong_values(fact: Fact) -> list[str]:
    """The values of the same relation that are wrong for this fact, in a fixed order."""
    return sorted({value for value in fact.relation.values.values() if value != fact.value})
