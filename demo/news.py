"""Made-up news: sentences with the headline, the facts, the newsworthiness and a chatty reply that belong to them.

Everything is composed from the lists below and from syllables, so the supply is endless and owed to nobody.
Names and places are mostly invented on the spot: a model can only answer by copying them, not by knowing them.
"""

import json
import random
from dataclasses import dataclass

FIRST = """Marta Anna Elena Sofia Lucia Ingrid Astrid Freya Clara Nora Emma Olivia Hannah Sarah Ruth Alice Grace Maria
Carmen Isabel Teresa Beatriz Chiara Giulia Fatima Leila Amina Zainab Yasmin Nadia Priya Ananya Meera Lakshmi Mei Yuki
Sakura Hana Linh Thuy Aisha Chinwe Ngozi Wanjiru Thandi Ewa Zofia Katarzyna Petra Jana Ivana Milena Olga Irina Tatiana
Peter Paul John James Thomas David Daniel Samuel Henry George Oliver Lars Erik Nils Anders Henrik Mikkel Jonas Lukas
Felix Karl Hans Jürgen Pierre Louis Antoine Hugo Marco Luca Paolo Carlos Diego Miguel Pablo Rafael João Pedro Tiago Omar
Hassan Ali Yusuf Karim Tariq Arjun Rohan Vikram Sanjay Wei Jun Kenji Hiroshi Takumi Minh Kwame Kofi Chidi Sipho Juma
Piotr Jakub Tomasz Marek Pavel Ivan Dmitri Sergei Goran Nikola Andrei Mihai Aron Björn Sven""".split()
LAST = """Lindqvist Smith Jones Taylor Brown Wilson Clarke Wright Walker Hughes Murphy Kelly Byrne Campbell Stewart Meyer
Schneider Fischer Weber Becker Hoffmann Vogel Dubois Laurent Moreau Lefebvre Garnier Rossi Ferrari Bianchi Romano Conti
García Martínez Hernández Romero Navarro Torres Silva Santos Pereira Almeida Costa Nielsen Hansen Jensen Andersen Berg
Johansson Svensson Bergström Virtanen Korhonen Nowak Kowalski Wójcik Novák Svoboda Horvat Kovač Petrov Ivanova Sokolov
Popescu Ionescu Papadopoulos Yılmaz Demir Haddad Khalil Rahman Hussain Patel Sharma Gupta Singh Reddy Chen Wang Zhang
Liu Tanaka Suzuki Yamamoto Sato Kim Park Nguyen Tran Okafor Adeyemi Mensah Dlamini Mwangi Otieno Bekele""".split()
PLACES = """Lisbon Madrid Paris London Dublin Edinburgh Berlin Hamburg Vienna Zurich Rome Milan Naples Athens Istanbul
Ankara Cairo Tunis Algiers Lagos Accra Nairobi Kampala Harare Pretoria Cape_Town Warsaw Kraków Prague Budapest Belgrade
Zagreb Sofia Bucharest Kyiv Riga Tallinn Vilnius Helsinki Stockholm Oslo Bergen Copenhagen Aarhus Brussels Antwerp
Amsterdam Rotterdam Geneva Lyon Marseille Toulouse Barcelona Seville Porto Boston Chicago Denver Seattle Austin Houston
New_York San_Diego Toronto Montreal Vancouver Mexico_City Havana Bogotá Lima Quito Santiago Buenos_Aires São_Paulo
Recife Montevideo Tokyo Osaka Kyoto Seoul Busan Beijing Shanghai Hong_Kong Taipei Manila Hanoi Bangkok Jakarta Delhi
Mumbai Chennai Kolkata Karachi Lahore Dhaka Colombo Tehran Baghdad Amman Beirut Riyadh Doha Dubai Sydney Melbourne
Perth Auckland Wellington Leeds York Bristol Cardiff Belfast Graz Bonn Leipzig""".replace("\n", " ").split()
PLACES = [p.replace("_", " ") for p in PLACES]
ONSET = "b br c ch d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sc sh sk sl sm sn st str t th tr v vr w wh y z zh".split()
VOWEL = "a a a e e e i i o o u ai au ea ee ei ia ie io oa oo ou y".split()
CODA = ["", "", "", "", *"b ck d ff g k l ll lt m n n nd ng nk nn nt p r r rd rg rk rn rt s s sk ss st t th v x z".split()]
NAME_END = "son sen er ez ini ova ski ou man berg feld ström dottir wala oglu escu ić".split()
PLACE_END = "ton ville burg ford stad by mouth haven field wick port dale hill grad pur abad minster bridge borg ham".split()
COMPASS = "North South East West New Old Upper Lower Port Fort Saint Lake Mount".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()

# (office, how much its holder's coming and going is worth)
OFFICES = [(o, w) for w, names in enumerate([
    "chair of the chess club|captain of the bowling team|head of the parents' group|leader of the choir|"
    "secretary of the garden club|keeper of the village museum|president of the book club|organist of the parish",
    "mayor|police chief|head of the city hospital|coach of the national team|director of the opera|bishop|"
    "chief executive of the airline|editor of the daily paper|rector of the university|governor of the province",
    "prime minister|president|chancellor|foreign minister|finance minister|head of the central bank|pope|"
    "defence minister|secretary general of the United Nations|head of the army"]) for o in names.split("|")]
COME_AND_GO = [("resigned as", "resigns as"), ("stepped down as", "steps down as"), ("was elected", "elected"),
               ("was sworn in as", "sworn in as"), ("was dismissed as", "dismissed as"), ("was named", "named")]
# What a person did: in the sentence, in the headline, its worth
DEEDS = [tuple(d.split("|")) + (w,) for w, deeds in enumerate(["""
baked the biggest cake in town|bakes biggest cake
celebrated a hundredth birthday|turns one hundred
opened a small bakery|opens bakery
opened a bookshop|opens bookshop
found a lost cat|finds lost cat
lost a set of keys|loses keys
won the local chess cup|wins chess cup
won a pumpkin contest|wins pumpkin contest
won the village raffle|wins raffle
painted the garden fence|paints fence
planted a cherry tree|plants cherry tree
grew a giant tomato|grows giant tomato
learned to play the piano|learns piano
adopted a puppy|adopts puppy
rode a bicycle to work|cycles to work
repaired an old radio|repairs old radio
missed the last bus|misses last bus
knitted a very long scarf|knits long scarf
gave a talk about bees|gives talk on bees
sold home-made jam at the market|sells jam at market
moved into a new flat|moves into new flat
ran a charity mile for the school|runs charity mile
collected stamps for fifty years|shows off stamps
sang in the church choir|sings in choir
""", """
won the marathon|wins marathon
won the national book prize|wins book prize
won a gold medal in swimming|wins swimming gold
scored the winning goal in the cup final|wins cup final
broke the national record in the high jump|breaks jump record
was arrested for fraud|arrested for fraud
was arrested over a bank robbery|held over bank robbery
was jailed for tax evasion|jailed for tax evasion
was rescued from a mountain|rescued from mountain
was hurt in a car crash|hurt in car crash
sued the city over noise|sues city over noise
bought the local football club|buys football club
sold a painting for ten million euros|sells painting for millions
closed a factory with three hundred workers|closes factory
opened a new hospital|opens hospital
opened a new tram line|opens tram line
led a strike of bus drivers|leads bus strike
led a march for lower rents|leads rent march
discovered a rare dinosaur|finds rare dinosaur
released a new album|releases album
married a famous actor|marries actor
signed with a rival team|joins rival team
lost a court case against a bank|loses case against bank
presented a plan for cheaper trains|presents train plan
""", """
was assassinated|assassinated
was killed in a bomb attack|killed in bomb attack
was taken hostage by rebels|taken hostage
declared war on a neighbouring country|declares war
declared a state of emergency|declares emergency
signed a peace treaty|signs peace treaty
announced a ceasefire|announces ceasefire
won the presidential election|wins presidency
won the Nobel Peace Prize|wins Nobel Peace Prize
won the Nobel Prize in Physics|wins physics Nobel
led a military coup|leads coup
was charged with war crimes|charged with war crimes
was convicted of spying for a foreign power|convicted of spying
found a cure for malaria|finds malaria cure
dissolved parliament|dissolves parliament
closed all borders|closes borders
ordered the evacuation of a million people|orders mass evacuation
became the first human on Mars|first human on Mars
survived a plane crash that killed ninety people|survives deadly crash
confirmed the outbreak of a deadly virus|confirms virus outbreak
""".strip("\n")]) for d in deeds.strip().split("\n")]
# Never in a lesson, only in the evaluation.
UNSEEN_DEEDS = [("watered the tulips", "waters tulips", 0), ("won the village chess cup", "wins chess cup", 0), ("adopted a lost puppy", "adopts puppy", 0),
                ("opened a new factory", "opens factory", 1), ("was arrested over a painting", "held over painting", 1), ("won a gold medal in the marathon", "wins marathon gold", 1),
                ("was killed by rebels", "killed by rebels", 2), ("signed a ceasefire", "signs ceasefire", 2), ("declared war on rebels", "declares war", 2)]
UNSEEN_GROUP_DEEDS = [("found a lost cat", "find lost cat", 0), ("blocked a factory", "block factory", 1), ("overthrew the president", "overthrow president", 2)]
UNSEEN_HOUSE_DEEDS = [("planted three trees", "plants trees", 0), ("bought a new factory", "buys factory", 1), ("lost the data of a million people", "loses data", 2)]
UNSEEN_FATES = [("A cat was seen in", "Cat seen in", 0), ("A storm destroyed a factory in", "Storm destroys factory in", 1), ("A bomb killed hundreds in", "Bomb kills hundreds in", 2)]
UNSEEN_OFFICES = [("captain of the chess club", 0), ("leader of the book club", 0), ("director of the city hospital", 1), ("mayor of the city", 1), ("interior minister", 2),
                  ("head of the government", 2)]
# Groups act too: who, then what they can have done
GROUPS = ["Police", "Firefighters", "Farmers", "Teachers", "Nurses", "Rebels", "Scientists", "Students", "Fishermen", "Divers"]
GROUP_DEEDS = [tuple(d.split("|")) + (w,) for w, deeds in enumerate(["""
rescued a cat from a tree|rescue cat from tree
held a summer picnic|hold picnic
cleaned up a park|clean up park
repainted a playground|repaint playground
found a lost wallet|find lost wallet
held a bake sale|hold bake sale
""", """
went on strike over pay|strike over pay
blocked the main road|block main road
seized two tonnes of cocaine|seize cocaine
put out a fire in a warehouse|put out warehouse fire
found a sunken ship|find sunken ship
protested against school cuts|protest school cuts
""", """
stormed the parliament|storm parliament
overthrew the government|overthrow government
shot down a passenger plane|shoot down plane
evacuated a million people after an earthquake|evacuate a million
found a cure for cancer|find cancer cure
warned of a nuclear accident|warn of nuclear accident
""".strip("\n")]) for d in deeds.strip().split("\n")]
# Companies and the like: the last word of the name, and their deeds
KINDS_OF_HOUSE = "Bank Motors Airlines Steel Foods Energy Pharma Rail Hotels Robotics Insurance Books".split()
HOUSE_DEEDS = [tuple(d.split("|")) + (w,) for w, deeds in enumerate(["""
opened a new canteen|opens canteen
gave every child a balloon|gives out balloons
changed its logo|changes logo
held a summer party|holds summer party
planted a hundred trees|plants trees
""", """
cut three hundred jobs|cuts jobs
bought a rival for ten million euros|buys rival
was fined for tax evasion|fined for tax evasion
launched a new phone|launches phone
raised its prices|raises prices
opened a new factory|opens factory
""", """
went bankrupt and took half the economy with it|goes bankrupt
leaked poison into the drinking water of a million people|poisons drinking water
lost the data of every citizen|loses data of every citizen
""".strip("\n")]) for d in deeds.strip().split("\n")]
# Nobody did it: the sentence up to the place, the headline up to the place, its worth
FATES = [("A cat got stuck in a tree in", "Cat stuck in tree in", 0), ("A bakery ran out of bread in", "Bakery runs out of bread in", 0),
         ("The first snow fell in", "First snow in", 0), ("A rainbow was seen over", "Rainbow over", 0),
         ("A fire destroyed a warehouse in", "Fire destroys warehouse in", 1), ("A storm closed the airport of", "Storm closes airport of", 1),
         ("Two trains collided near", "Trains collide near", 1), ("A power cut stopped the trams in", "Power cut stops trams in", 1),
         ("An earthquake hit", "Earthquake hits", 2), ("A flood killed hundreds in", "Flood kills hundreds in", 2),
         ("A bomb exploded in", "Bomb explodes in", 2), ("A passenger plane crashed near", "Plane crashes near", 2), ("War broke out in", "War in", 2)]
FATE_REPLIES = ["Oh, {place}. I hope everyone had a good day.", "Bad luck for {place}. Was anybody hurt?", "Terrible news from {place}. I hope people are safe."]
TITLES = """singer actor baker farmer teacher nurse student painter architect engineer lawyer driver striker novelist
professor banker sailor pilot chef""".split()

REPLIES = [[
    "How nice! {who} made my day.", "A small story, but a lovely one. Well done, {last}!",
    "That is sweet news from {place}. Do you know {who}?", "Ha, {place} is never boring. I like {last} already.",
], [
    "Interesting. People in {place} will talk about {last} for a while.", "I had not heard that about {who}. What happened next?",
    "That is a real story. How did {place} take it?", "{who} in the news again! What do you make of it?",
], [
    "That is huge news! The whole world will look at {place}.", "Wow. This changes everything for {place}, and for {who}.",
    "I can hardly believe it. {last} will be on every front page.", "This is serious. How are people in {place} doing?",
]]
SMALL_TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hey", "Good morning", "Good evening"],
     "Hello! I am the news desk. Tell me what happened."),
    (["Who are you?", "What are you?", "What is your name?", "Introduce yourself."],
     "I am a very small language model that chats about the news."),
    (["What can you do?", "How can you help me?", "Help", "What do you do?"],
     "Tell me a piece of news in one sentence, and I will say what I think of it."),
    (["How are you?", "How are you today?", "How is it going?", "Are you well?"], "Very well, thank you. Is there any news?"),
    (["Thanks", "Thank you", "Thank you!", "Thanks a lot!", "Many thanks."], "You are welcome. Come back with more news!"),
    (["Bye", "Goodbye", "Goodbye!", "See you", "Good night"], "Goodbye! I will keep an eye on the wires."),
    (["Any news?", "What is new?", "What happened today?", "Tell me the news."],
     "I only know what you tell me. What have you heard?"),
    (["Tell me a joke.", "Make me laugh.", "Do you know a joke?"], "No news is good news, but not for a news desk."),
]
# The three tasks, asked for in words: what the base can do when told, an adapter does untold.
ASK = {
    "rate": ["How newsworthy is this, from 0 to 2?", "Rate this from 0 to 2."],
    "headline": ["Write a headline.", "Give me a headline for this."],
    "extract": ["Who, where and when? Answer in JSON.", "Extract who, where and when as JSON."],
}
TASKS = tuple(ASK)


@dataclass
class Story:
    sentence: str
    chat: str
    rate: str
    headline: str
    extract: str


def syllables(rng, low, high):
    return "".join(rng.choice(ONSET) + rng.choice(VOWEL) + rng.choice(CODA) for _ in range(rng.randint(low, high)))


def first_name(rng):
    return rng.choice(FIRST) if rng.random() < 0.5 else syllables(rng, 1, 2).capitalize()


def last_name(rng):
    if rng.random() < 0.4:
        return rng.choice(LAST)
    return (syllables(rng, 1, 2) + (rng.choice(NAME_END) if rng.random() < 0.4 else "")).capitalize()


def place_name(rng):
    if rng.random() < 0.4:
        return rng.choice(PLACES)
    name = (syllables(rng, 1, 2) + (rng.choice(PLACE_END) if rng.random() < 0.6 else "")).capitalize()
    return f"{rng.choice(COMPASS)} {name}" if rng.random() < 0.15 else name


def point_in_time(rng):
    """A time with the word that introduces it: ("on ", "Monday")."""
    kind, day = rng.random(), rng.choice(WEEKDAYS)
    if kind < 0.25:
        return "on ", day
    if kind < 0.33:
        return "on ", f"{day} {rng.choice(['morning', 'afternoon', 'evening', 'night'])}"
    if kind < 0.65:
        year = f" {rng.randint(1950, 2029)}" if rng.random() < 0.25 else ""
        return "on ", f"{rng.randint(1, 30)} {rng.choice(MONTHS)}{year}"
    if kind < 0.74:
        return "", rng.choice(["last", "this"]) + " " + rng.choice([day, "week", "month"])
    if kind < 0.82:
        return "", rng.choice(["yesterday", "today", "this morning", "this afternoon", "this evening", "last night", "two days ago"])
    return "in ", rng.choice([rng.choice(MONTHS), str(rng.randint(1950, 2029))])


@dataclass
class Event:
    who: str
    last: str  # the name a headline uses
    said: str
    shown: str
    worth: int
    of_place: bool = False  # "mayor of Lisbon" rather than "mayor in Lisbon"


def event(rng, deeds=DEEDS, group_deeds=GROUP_DEEDS, house_deeds=HOUSE_DEEDS, offices=OFFICES):
    kind = rng.random()
    if kind < 0.12:
        who = rng.choice(GROUPS)
        return Event(who, who, *rng.choice(group_deeds))
    if kind < 0.20:
        who = f"{last_name(rng)} {rng.choice(KINDS_OF_HOUSE)}"
        return Event(who, who, *rng.choice(house_deeds))
    first, last = first_name(rng), last_name(rng)
    if rng.random() < 0.07:
        last = f"{last}-{last_name(rng)}"
    if kind < 0.48:
        (office, worth), (said, shown) = rng.choice(offices), rng.choice(COME_AND_GO)
        of_place = len(office.split()) < 3 and rng.random() < 0.4
        return Event(f"{first} {last}", last, f"{said} {office}", f"{shown} {office}", worth, of_place)
    return Event(f"{first} {last}", last, *rng.choice(deeds))


def fate(rng, fates=FATES):
    (said, shown, worth), place, (pre, time) = rng.choice(fates), place_name(rng), point_in_time(rng)
    has_time = rng.random() < 0.9
    sentence = f"{said} {place}" + (f" {pre}{time}." if has_time else ".")
    if has_time and rng.random() < 0.25:
        sentence = f"{capital(pre + time)}, {said[0].lower()}{said[1:]} {place}."
    facts = {"who": None, "where": place, "when": time if has_time else None}
    return Story(sentence, FATE_REPLIES[worth].format(place=place), str(worth), f"{shown} {place}", json.dumps(facts, ensure_ascii=False))


def capital(text):
    return text[0].upper() + text[1:]


def story(rng, fates=FATES, **kind):
    if rng.random() < 0.08:
        return fate(rng, fates)
    e, place, (pre, time) = event(rng, **kind), place_name(rng), point_in_time(rng)
    has_place, has_time = e.of_place or rng.random() < 0.94, rng.random() < 0.92
    where = f" {'of' if e.of_place else 'in'} {place}" if has_place else ""
    when = f" {pre}{time}" if has_time else ""
    titled = e.last != e.who and rng.random() < 0.12
    subject = f"the {rng.choice(TITLES)} {e.who}" if titled else e.who
    order = rng.randrange(6)
    if order == 0 and has_time:
        sentence = f"{capital(pre + time)}, {subject} {e.said}{where}."
    elif order == 1 and has_place and not e.of_place:
        sentence = f"In {place}, {subject} {e.said}{when}."
    elif order == 2 and not e.of_place:
        sentence = f"{capital(subject)} {e.said}{when}{where}."
    else:
        sentence = f"{capital(subject)} {e.said}{where}{when}."
    if rng.random() < 0.05:
        sentence = sentence[:-1] + rng.choice(["", "!"])
    reply = REPLIES[e.worth][sum(map(ord, e.said)) % 4].format(who=e.who, last=e.last, place=place if has_place else "town")
    facts = {"who": e.who, "where": place if has_place else None, "when": time if has_time else None}
    return Story(sentence, reply, str(e.worth), f"{e.last} {e.shown}{where}", json.dumps(facts, ensure_ascii=False))


def lesson(rng, **kind):
    """One (user, assistant) pair of the base's schooling: mostly chat, the tasks only when asked for in words."""
    draw = rng.random()
    if draw < 0.04:
        users, reply = rng.choice(SMALL_TALK)
        return rng.choice(users), reply
    tale = story(rng, **kind)
    if draw < 0.40:
        return tale.sentence, tale.chat
    task = rng.choices(TASKS, [1, 2, 4])[0]
    return f"{rng.choice(ASK[task])} {tale.sentence}", getattr(tale, task)


if __name__ == "__main__":
    rng = random.Random(0)
    for _ in range(20):
        print(*lesson(rng), sep="  →  ")
