# SPDX-License-Identifier: Apache-2.0
"""Conversations the demo model is trained and tested on.

Everything is generated from a seed.  An item whose hash falls in one of ten
buckets is held out: the trainer never draws it, the questions and evaluate
programs draw nothing else.  Capitals are the exception, there are only so many.
"""
import random
import re
import zlib

# The 21 special tokens of the published vocabulary, here at 256 and up.
SPECIALS = [
    "<|startoftext|>", "<|endoftext|>", "<|reserved_200000|>", "<|reserved_200001|>",
    "<|return|>", "<|constrain|>", "<|reserved_200004|>", "<|channel|>", "<|start|>",
    "<|end|>", "<|message|>", "<|reserved_200009|>", "<|reserved_200010|>",
    "<|reserved_200011|>", "<|call|>", "<|reserved_200013|>", "<|reserved_200014|>",
    "<|reserved_200015|>", "<|reserved_200016|>", "<|reserved_200017|>", "<|endofprompt|>",
]
SPECIAL_ID = {name: 256 + i for i, name in enumerate(SPECIALS)}
VOCAB = 288
RETURN, END, CALL = (SPECIAL_ID[n] for n in ("<|return|>", "<|end|>", "<|call|>"))
ENDOFTEXT = SPECIAL_ID["<|endoftext|>"]

WORDS = """
able about above acid actor after again agent album alert alone amber anchor angle animal answer
apple april arch arrow artist aspen atlas autumn avenue award baby badge bakery ball bamboo banana
band banner barn basket beach bean bear beauty bed bell bench berry bicycle bird blanket blossom blue
boat body bone book border bottle bowl branch bread brick bridge broom brother brush bubble bucket
building butter button cabin cable cactus cake camel camera camp canal candle canyon captain carpet
carrot castle cat cave ceiling cellar chair chalk cheese cherry chest chicken child church cinema
circle city clay clock cloud clover coast coat coffee coin collar comet copper coral corner cotton
country cousin cow crab cradle crane crayon cricket crown crystal cup curtain dance daughter dawn deck
deer desert desk diamond dinner dish doctor dog dolphin donkey door dragon drawer dream dress drum
duck dust eagle earth east echo edge egg eight elbow elephant elm email empty engine envelope evening
event exit eye fabric face factory falcon family farm feather fence fern ferry field finger fire fish
flag flame flower flute fog forest fork fossil fountain fox frame friend frog fruit garden garlic gate
ghost giant gift ginger giraffe glass globe glove goat gold goose grape grass gravel green guitar hair
hammer hand harbor harvest hat hawk heart hedge helmet hen herb hill hockey honey hook horse hotel
house hut ice idea igloo image index ink insect iron island ivory ivy jacket jaguar jar jazz jelly
jewel joke journey judge juice jungle kayak kettle key king kitchen kite kitten knee knife knot ladder
lake lamp lantern laptop lava leaf leather lemon letter library light lily lion liquid lizard llama
lobster lock lotus lunch machine magnet map maple marble market mask meadow medal melon metal meteor
milk mill minute mirror monkey moon morning moss mother motor mountain mouse museum music mustard nail
name napkin nature necklace needle nest night noise north notebook number nurse nut oak oasis ocean
octopus office olive onion opera orange orbit orchard organ otter oven owl oyster paddle page paint
palace panda paper park parrot party path peach peanut pear pebble pencil penguin pepper piano picture
pigeon pillow pilot pine pirate planet plant plate pocket poem pond pony potato prince pumpkin puppet
puzzle pyramid quarter queen quiet quilt rabbit radio rain raven recipe ribbon rice ring river road
robin robot rocket roof room rope rose ruby saddle sail salad salt sand scarf school science scissors
sea seed shadow sheep shell ship shirt shoe shop silk silver singer sister sky sled smile snail snake
snow soap sock soup south spider spoon spring square squirrel stairs star station stone storm story
strawberry stream street student sugar summer sun swan sweater table tail tea teacher temple tent
thread thunder ticket tiger toast tomato tooth tower town toy train tree triangle truck trumpet tulip
tunnel turtle twin umbrella uncle under unicorn uniform urban usual valley vanilla vase velvet vessel
village vine violin voice volcano voyage wagon wall walnut water wave weather whale wheat wheel
whisper wind window winter wizard wolf wood wool world yard year yellow yogurt young zebra zero zigzag
zipper zone
""".split()

CAPITALS = dict(pair.split(":") for pair in """
France:Paris,Germany:Berlin,Italy:Rome,Spain:Madrid,Portugal:Lisbon,Austria:Vienna,Belgium:Brussels,
Denmark:Copenhagen,Norway:Oslo,Sweden:Stockholm,Finland:Helsinki,Iceland:Reykjavik,Ireland:Dublin,
Poland:Warsaw,Hungary:Budapest,Greece:Athens,Turkey:Ankara,Egypt:Cairo,Kenya:Nairobi,Ghana:Accra,
Nigeria:Abuja,Morocco:Rabat,Tunisia:Tunis,Ethiopia:Addis Ababa,Japan:Tokyo,China:Beijing,India:New Delhi,
Nepal:Kathmandu,Thailand:Bangkok,Vietnam:Hanoi,Indonesia:Jakarta,Malaysia:Kuala Lumpur,
the Philippines:Manila,South Korea:Seoul,Mongolia:Ulaanbaatar,Iran:Tehran,Iraq:Baghdad,Jordan:Amman,
Lebanon:Beirut,Canada:Ottawa,the United States:Washington,Mexico:Mexico City,Cuba:Havana,Jamaica:Kingston,
Peru:Lima,Chile:Santiago,Argentina:Buenos Aires,Brazil:Brasilia,Colombia:Bogota,Venezuela:Caracas,
Ecuador:Quito,Uruguay:Montevideo,Australia:Canberra,New Zealand:Wellington,the United Kingdom:London,
the Netherlands:Amsterdam,Switzerland:Bern,Croatia:Zagreb,Serbia:Belgrade,Bulgaria:Sofia,Romania:Bucharest,
Ukraine:Kyiv,Estonia:Tallinn,Latvia:Riga,Lithuania:Vilnius,Russia:Moscow,Slovakia:Bratislava,
Slovenia:Ljubljana
""".replace("\n", "").split(","))

ABOUT = ("I am the phalanx demo model. I add and subtract numbers, count letters, "
         "sort and reverse words, and know some capitals.")
TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hey", "Hello there!", "Say hello.", "Hi there"],
     "greeting", "Hello! How can I help?"),
    (["How are you?", "How are you today?", "How do you do?"], "greeting", "I am well, thank you."),
    (["Thanks", "Thank you", "Thank you!", "Thanks!", "Thanks a lot."], "thanks", "You are welcome."),
    (["Bye", "Goodbye", "Goodbye!", "See you later.", "Bye!"], "farewell", "Goodbye!"),
    (["Good morning", "Good morning!"], "greeting", "Good morning!"),
    (["Who are you?", "What are you?", "What can you do?", "What is your name?", "Help",
      "Tell me about yourself.", "What is phalanx?"], "about me", ABOUT),
    (["Tell me a story.", "Write a poem.", "What is the weather?", "What time is it?",
      "Explain quantum physics.", "Write a haiku about the sea.", "Tell me a joke.",
      "What is the meaning of life?"], "not my task", "I cannot do that. " + ABOUT),
]

ADD = ["What is {a} + {b}?", "Compute {a} + {b}.", "What is the sum of {a} and {b}?",
       "What is {a} plus {b}?", "Add {a} and {b}.", "{a} + {b}", "{a}+{b}", "What is {a}+{b}?",
       "Calculate {a} + {b}.", "{a} + {b} = ?", "How much is {a} + {b}?", "What's {a} plus {b}?"]
SUB = ["What is {a} - {b}?", "Compute {a} - {b}.", "What is {a} minus {b}?",
       "Subtract {b} from {a}.", "{a} - {b}", "{a}-{b}", "What is {a}-{b}?",
       "Calculate {a} - {b}.", "{a} - {b} = ?", "How much is {a} - {b}?", "What's {a} minus {b}?",
       "What is the difference of {a} and {b}?"]
MUL = ["What is {a} * {b}?", "Compute {a} * {b}.", "What is {a} times {b}?", "{a} * {b}",
       "Multiply {a} by {b}.", "What is the product of {a} and {b}?", "Calculate {a}*{b}."]
DIV = ["What is {a} / {b}?", "Compute {a} / {b}.", "What is {a} divided by {b}?", "{a} / {b}",
       "Divide {a} by {b}."]
COUNT = ["How many times does the letter {c} appear in {w}?", "How many {c}'s are in {w}?",
         "How many letters {c} are in the word {w}?", "Count the letter {c} in {w}.",
         "How many times is {c} in {w}?"]
REVERSE = ["Reverse the word {w}.", "Spell {w} backwards.", "What is {w} reversed?",
           "Write {w} backwards."]
SORT = ["Sort these words: {l}.", "Sort the words {l}.", "Put these words in alphabetical order: {l}.",
        "Sort alphabetically: {l}"]
CAPITAL = ["What is the capital of {c}?", "Name the capital of {c}.", "Which city is the capital of {c}?",
           "What's the capital of {c}?"]

INSTRUCTIONS = ["You are a helpful assistant.", "Answer briefly.", "Be concise.", "Answer in one line.",
                "You are a careful assistant. Think step by step.", "You are a calculator.",
                "Reply in English.", "You are a friendly tutor for children.", "Be polite.",
                "You are phalanx, a small demonstration model.", "Only give the answer."]

CALCULATOR = """// Evaluate an arithmetic expression.
type calculator = (_: {
// The expression.
expression: string,
}) => any;"""
OTHER_TOOLS = ["""// Get the current weather.
type get_weather = (_: {
// The city.
city: string,
}) => any;""", """// Search the web.
type search = (_: {
query: string,
}) => any;""", """// The current time.
type get_time = () => any;"""]
CALCULATOR_SCHEMA = {"type": "function", "function": {
    "name": "calculator", "description": "Evaluate an arithmetic expression.",
    "parameters": {"type": "object", "properties": {
        "expression": {"type": "string", "description": "The expression."}},
        "required": ["expression"]}}}


def held_out(kind, item):
    """True for the tenth of all items that training never sees."""
    return zlib.crc32(f"{kind}:{item}".encode()) % 10 == 7


_SPLIT = re.compile("(" + "|".join(re.escape(s) for s in SPECIALS) + ")")


def encode(text):
    """Token ids of a rendered conversation; special names become their one id."""
    ids = []
    for piece in _SPLIT.split(text):
        special = SPECIAL_ID.get(piece)
        if special is None:
            ids.extend(piece.encode())
        else:
            ids.append(special)
    return ids


def decode(ids):
    """Text of token ids, special tokens by name."""
    out, run = [], bytearray()
    for i in ids:
        if i < 256:
            run.append(i)
            continue
        out.append(run.decode("utf-8", "replace"))
        out.append(SPECIALS[i - 256] if i < 277 else "")
        run = bytearray()
    return "".join(out) + run.decode("utf-8", "replace")


# ---- tasks: each returns (question, analysis, answer) -----------------------


def number(rng):
    """0 to 999; half of the draws give one, two and three digits equal shares."""
    if rng.random() < 0.5:
        return rng.randrange(1000)
    return rng.randrange(10 ** rng.randint(1, 3))


def operands(rng, op, held):
    """A pair for op.  Equal and close operands are rare, so they are drawn more
    often: without that a model learns that 0 - 0 is -0."""
    while True:
        a, b = number(rng), number(rng)
        roll = rng.random()
        if roll < 0.04:
            b = a
        elif roll < 0.10:
            b = min(999, max(0, a + rng.randint(-12, 12)))
        elif roll < 0.13:
            a, b = rng.randrange(10), rng.randrange(10)
        if held_out("add-sub", f"{a}{op}{b}") == held:
            return a, b


def work_add(a, b):
    """Column addition, ones first: digit+digit+carry=digit c carry."""
    lines, carry = [f"{a:03}+{b:03}"], 0
    for x, y in zip(f"{a:03}"[::-1], f"{b:03}"[::-1]):
        total = int(x) + int(y) + carry
        lines.append(f"{x}+{y}+{carry}={total % 10}c{total // 10}")
        carry = total // 10
    return "\n".join(lines + [f"{a + b:04}"])


def work_sub(a, b):
    """Compare digit by digit, then the larger minus the smaller with borrows."""
    compare = []
    for x, y in zip(f"{a:03}", f"{b:03}"):
        compare.append(x + ("<" if x < y else ">" if x > y else "=") + y)
        if x != y:
            break
    sign, big, small = ("-", b, a) if a < b else ("+", a, b)
    lines = [f"{a:03}-{b:03}", " ".join(compare), f"{sign}{big:03}-{small:03}"]
    borrow = 0
    for x, y in zip(f"{big:03}"[::-1], f"{small:03}"[::-1]):
        total = int(x) - int(y) - borrow
        lines.append(f"{x}-{y}-{borrow}={total % 10}b{int(total < 0)}")
        borrow = int(total < 0)
    return "\n".join(lines + [f"{sign}{abs(a - b):04}"])


def add(rng, held):
    a, b = operands(rng, "+", held)
    return rng.choice(ADD).format(a=a, b=b), work_add(a, b), str(a + b)


def sub(rng, held):
    a, b = operands(rng, "-", held)
    return rng.choice(SUB).format(a=a, b=b), work_sub(a, b), str(a - b)


def made_up_word(rng):
    """Letters at random, mostly pronounceable, so that spelling is not recall."""
    length = rng.randint(3, 10)
    if rng.random() < 0.3:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))
    pairs = "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(5))
    start = rng.randrange(2)
    return (pairs + "sy")[start:start + length]


def word(rng, held, kind):
    """A word of the list, or while training as often a made-up one."""
    while True:
        w = made_up_word(rng) if not held and rng.random() < 0.5 else rng.choice(WORDS)
        if held_out(kind, w) == held:
            return w


def count(rng, held):
    w = word(rng, held, "count")
    c = rng.choice(w) if rng.random() < 0.8 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    steps, n = [], 0
    for i, letter in enumerate(w):
        n += letter == c
        steps.append(f"{i}{letter}{n}")
    return rng.choice(COUNT).format(c=c, w=w), f"{c}: " + " ".join(steps), str(n)


def reverse(rng, held):
    w = word(rng, held, "reverse")
    steps = [f"{i}{c}" for i, c in enumerate(w)]
    return (rng.choice(REVERSE).format(w=w),
            " ".join(steps) + "\n" + " ".join(steps[::-1]), w[::-1])


def sort(rng, held):
    """Insertion sort written out on the first two letters, which differ."""
    while True:
        words, heads = [], set()
        size = rng.randint(3, 5)
        while len(words) < size:
            w = made_up_word(rng) if not held and rng.random() < 0.3 else rng.choice(WORDS)
            if w[:2] not in heads:
                words.append(w)
                heads.add(w[:2])
        if held_out("sort", " ".join(words)) == held:
            break
    lines = [" ".join(sorted(w[:2] for w in words[:i + 1])) for i in range(size)]
    return rng.choice(SORT).format(l=", ".join(words)), "\n".join(lines), ", ".join(sorted(words))


def capital(rng, held):
    country, city = rng.choice(list(CAPITALS.items()))
    return rng.choice(CAPITAL).format(c=country), country + ": " + city, city


def talk(rng, held):
    asked, topic, answer = rng.choice(TALK)
    return rng.choice(asked), topic, answer


TASKS = {"add": add, "sub": sub, "count": count, "reverse": reverse, "sort": sort,
         "capital": capital, "talk": talk}
WEIGHTS = {"add": .23, "sub": .27, "count": .13, "reverse": .12, "sort": .16, "capital": .06, "talk": .03}


def task(rng, held=False, kind=None):
    kind = kind or rng.choices(list(WEIGHTS), WEIGHTS.values())[0]
    return TASKS[kind](rng, held)


def tool_item(rng, held=False, add_sub=False):
    """(question, expression, result) for the calculator."""
    op = rng.choice("+-") if add_sub or rng.random() < 0.6 else rng.choice("+-**/")
    if op in "+-" and (add_sub or rng.random() < 0.7):
        a, b = operands(rng, op, held)
    else:
        while True:
            a, b = (rng.randrange(10 ** rng.randint(1, 5)) for _ in "ab")
            b = b or 3
            if held_out("add-sub", f"{a}{op}{b}") == held:
                break
    forms = {"+": ADD, "-": SUB, "*": MUL, "/": DIV}[op]
    value = {"+": a + b, "-": a - b, "*": a * b}.get(op)
    result = str(value) if op != "/" else f"{a / b:.6g}"
    return rng.choice(forms).format(a=a, b=b), f"{a}{op}{b}", result


# ---- rendering: exactly what the server renders -----------------------------


def system(rng, tools):
    """The system message, for a random day and effort."""
    date = f"{rng.randint(2024, 2035)}-{rng.randint(1, 12):02}-{rng.randint(1, 31):02}"
    effort = rng.choice(["medium", "medium", "low", "high"])
    return system_message(date, effort, tools)


def system_message(date, effort="medium", tools=False):
    return ("<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
            f"Knowledge cutoff: 2024-06\nCurrent date: {date}\n\nReasoning: {effort}\n\n"
            "# Valid channels: analysis, commentary, final. Channel must be included for every message."
            + ("\nCalls to these tools must go to the commentary channel: 'functions'." if tools else "")
            + "<|end|>")


def developer_message(text=None, tools=()):
    parts = [f"# Instructions\n\n{text}"] if text else []
    if tools:
        parts.append("# Tools\n\n## functions\n\nnamespace functions {\n\n"
                     + "".join(t + "\n\n" for t in tools) + "} // namespace functions")
    return "<|start|>developer<|message|>" + "\n\n".join(parts) + "<|end|>" if parts else ""


def user(question):
    return f"<|start|>user<|message|>{question}<|end|>"


def final(answer):
    return f"<|channel|>final<|message|>{answer}"


def call_in_history(expression, after=False):
    """A past call; the recipient stands before the channel when re-rendered."""
    to = " to=functions.calculator"
    header = (f"<|start|>assistant<|channel|>commentary{to}" if after
              else f"<|start|>assistant{to}<|channel|>commentary")
    return header + ' <|constrain|>json<|message|>{"expression":"' + expression + '"}<|call|>'


def tool_result(text):
    return f"<|start|>functions.calculator to=assistant<|channel|>commentary<|message|>{text}<|end|>"


def answer_turn(analysis, answer):
    """What the model writes after <|start|>assistant when it answers."""
    return (f"<|channel|>analysis<|message|>{analysis}<|end|><|start|>assistant"
            + final(answer) + "<|return|>")


def call_turn(expression):
    """What the model writes after <|start|>assistant when it calls the tool."""
    return (f"<|channel|>analysis<|message|>Use the calculator: {expression}<|end|><|start|>assistant"
            "<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>"
            '{"expression":"' + expression + '"}<|call|>')


def instruction(rng):
    """A developer instruction; half of them are words at random, because the
    model must keep working whatever a user writes there."""
    if rng.random() < 0.5:
        return rng.choice(INSTRUCTIONS)
    words = rng.choices(WORDS, k=rng.randint(2, 16))
    return " ".join(words).capitalize() + "."


def earlier_turns(rng, calculator):
    """One or two finished turns: analysis is gone, calls and results are kept."""
    out = ""
    for _ in range(rng.choice([1, 1, 2])):
        if calculator and rng.random() < 0.7:
            q, expression, result = tool_item(rng)
            out += user(q) + call_in_history(expression) + tool_result(result)
            out += "<|start|>assistant" + final(result) + "<|end|>"
        else:
            q, _, answer = task(rng)
            out += user(q) + "<|start|>assistant" + final(answer) + "<|end|>"
    return out


def preamble(rng, tools=None):
    """What stands before the user's question.  tools: None, "calculator" or "other"."""
    roll = rng.random()
    if not tools and roll < 0.15:
        return ""
    text = system(rng, bool(tools))
    offered = rng.sample(OTHER_TOOLS, rng.randint(0 if tools == "calculator" else 1, 1)) if tools else []
    if tools == "calculator":
        offered.insert(rng.randrange(len(offered) + 1), CALCULATOR)
        offered = offered if rng.random() < 0.25 else [CALCULATOR]
    text += developer_message(instruction(rng) if rng.random() < 0.4 else None, offered)
    if rng.random() < 0.3:
        text += earlier_turns(rng, tools == "calculator")
    return text


def example(rng, tools=None):
    """(prompt, completion) that follow a preamble of the same tools."""
    roll = rng.random()
    if tools != "calculator" or roll < 0.25:
        kind = None
        if tools == "calculator":  # sums go to the tool when there is one
            kind = rng.choice(["count", "reverse", "sort", "capital", "talk"])
        question, analysis, answer = task(rng, kind=kind)
        return user(question) + "<|start|>assistant", answer_turn(analysis, answer)
    question, expression, result = tool_item(rng)
    if roll < 0.7:
        return user(question) + "<|start|>assistant", call_turn(expression)
    history = ""
    if rng.random() < 0.4:
        history = ("<|start|>assistant<|channel|>analysis<|message|>"
                   f"Use the calculator: {expression}<|end|>")
    history += call_in_history(expression, after=rng.random() < 0.3)
    told = result if rng.random() < 0.8 else rng.choice(
        ['{{"result": {}}}', '{{"result":{}}}', '"{}"', "{}\n"]).format(result)
    return (user(question) + history + tool_result(told) + "<|start|>assistant",
            final(result) + "<|return|>")


def questions(seed, count, kind="add-sub"):
    """Held-out items as dicts with question and answer, none twice while new ones are left."""
    rng, seen = random.Random(f"questions {seed} {kind}"), set()
    for _ in range(count):
        for _ in range(1000):  # a small kind (capitals) runs out of new ones, then it repeats
            item = question(rng, kind)
            if item["question"] not in seen:
                break
        seen.add(item["question"])
        yield item


def question(rng, kind):
    if kind == "tool":
        asked, expression, result = tool_item(rng, held=True, add_sub=True)
        return {"question": asked, "answer": result, "expression": expression}
    name = rng.choice(["add", "sub"]) if kind == "add-sub" else kind
    asked, _, answer = TASKS[name](rng, True)
    return {"question": asked, "answer": answer}
