"""Sentences with made-up personal data and secrets, and look-alikes without any. Nobody in here exists."""

# ruff: noqa: E501 - lists of example sentences read better unbroken
from __future__ import annotations

import random
import re
import string

_FIRST = [
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Elif",
    "Farid",
    "Grace",
    "Hiro",
    "Ines",
    "Jamal",
    "Kofi",
    "Lena",
    "Mateo",
    "Nadia",
    "Oskar",
    "Priya",
    "Quentin",
    "Rosa",
    "Sven",
    "Tomoko",
    "Uma",
    "Victor",
    "Wei",
    "Ximena",
    "Yusuf",
    "Zoe",
    "John",
    "Mary",
    "Paul",
    "Fatima",
]
_LAST = [
    "Schmidt",
    "Lopez",
    "Kowalski",
    "Nguyen",
    "Okafor",
    "Rossi",
    "Tanaka",
    "Silva",
    "Ivanova",
    "Smith",
    "Dubois",
    "Andersen",
    "Haddad",
    "Patel",
    "O'Brien",
    "van Dijk",
    "Kim",
    "Mueller",
    "Novak",
    "Garcia-Perez",
    "Johansson",
    "Brown",
    "Yilmaz",
    "Chen",
]
_STREET = [
    "Oak Street",
    "Hauptstrasse",
    "Rue de Lyon",
    "Via Roma",
    "Maple Ave",
    "Long Lane",
    "Calle Mayor",
    "Station Road",
    "Gartenweg",
    "King's Cross Road",
]
_CITY = ["Berlin", "Leeds", "Porto", "Austin", "Lyon", "Osaka", "Gdansk", "Oslo", "Quito", "Pune", "Boston", "Graz"]
_ORG = [
    "Acme Corp",
    "Nordwind GmbH",
    "Blue River Ltd",
    "Hansen & Sons",
    "Globex Inc.",
    "Lumen Labs",
    "St. Mary's Hospital",
    "First Harbor Bank",
]
_DOMAIN = [
    "web.de",
    "gmail.com",
    "example.org",
    "mail.ru",
    "company.co.uk",
    "outlook.com",
    "uni-graz.at",
    "posteo.net",
    "acme.io",
    "yahoo.fr",
]

TEMPLATES = [
    "My name is {PERSON} and my email is {EMAIL_ADDRESS}, call {PHONE_NUMBER}",
    "contact {PERSON} at {EMAIL_ADDRESS}",
    "reach me on {PHONE_NUMBER} or {EMAIL_ADDRESS}",
    "send it to {EMAIL_ADDRESS} please",
    "I am {PERSON}, {AGE} years old, from {LOCATION}",
    "key {API_KEY}",
    "my api key is {API_KEY}, why is it rejected?",
    "export OPENAI_API_KEY={API_KEY}",
    "curl -H 'Authorization: Bearer {API_KEY}' https://api.example.org/v1",
    "token: {API_KEY}",
    'client = Client("{API_KEY}")',
    "password is {PASSWORD}",
    "user {USERNAME} password {PASSWORD}",
    "I log in as {USERNAME} with {PASSWORD} and it fails",
    "ssh {USERNAME}@{IP_ADDRESS} does not work",
    "the server {IP_ADDRESS} is down",
    "ping {IP_ADDRESS}",
    "my iban is {IBAN_CODE}",
    "transfer 200 euros to {IBAN_CODE}, {PERSON}",
    "my card {CREDIT_CARD} was declined",
    "pay with {CREDIT_CARD}, name {PERSON}",
    "I live at {STREET_ADDRESS}",
    "ship it to {PERSON}, {STREET_ADDRESS}",
    "born on {DATE_OF_BIRTH}",
    "date of birth: {DATE_OF_BIRTH}, name: {PERSON}",
    "Dear {PERSON}, thank you for your letter. Regards, {PERSON}",
    "write a letter to {PERSON} in {LOCATION}",
    "{PERSON} works at {ORGANIZATION}",
    "{ORGANIZATION} hired {PERSON} as a nurse",
    "my ssn is {NATIONAL_ID}",
    "social security number {NATIONAL_ID}",
    "passport {PASSPORT_NUMBER}, expires soon",
    "Email: {EMAIL_ADDRESS}\nPhone: {PHONE_NUMBER}\nAddress: {STREET_ADDRESS}",
    "{PERSON}; {EMAIL_ADDRESS}; {PHONE_NUMBER}",
    "Summarise: {PERSON} met {PERSON} in {LOCATION} and gave her the number {PHONE_NUMBER}.",
    "Patient {PERSON}, born {DATE_OF_BIRTH}, lives in {LOCATION}.",
    "my boss {PERSON} is rude, what do I say?",
    "draft a mail to {PERSON} about the delay",
    "the function returns 12345 for user root",
    "order number 88231 is late",
    "version 10.4.2 broke the build",
    "why is 3.14159 irrational",
    "open port 8080 on localhost",
    "ISBN 978-3-16-148410-0",
    "the 2024 budget is 120,000",
    "flight LH441 at 9:45",
    "room 204",
    "sort [12, 7, 99]",
    "commit 9fceb02 fails",
    "sha256 checksums explained",
    "what is an IBAN",
    "how do I validate an email address",
    "generate a random password policy",
    "what does an API key look like",
    "def f(user, password): return user",
    "is 192.168 a private range",
    "who was Napoleon",
    "tell me about Paris",
]
_SLOT = re.compile(r"\{([A-Z_]+)\}")


def _digits(rng: random.Random, n: int) -> str:
    return "".join(rng.choice(string.digits) for _ in range(n))


def _token(rng: random.Random, n: int) -> str:
    return "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(n))


def _value(kind: str, rng: random.Random) -> str:
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    makers = {
        "PERSON": lambda: rng.choice((f"{first} {last}", first, f"{first} {last}", f"{first[0]}. {last}")),
        "EMAIL_ADDRESS": lambda: re.sub(r"[^a-z0-9@._+-]", "", rng.choice((f"{first}.{last}", f"{first[0]}{last}", f"{first}{rng.randint(1, 99)}", f"{first}_{last}", f"{first}.{last[0]}")).lower()) + "@" + rng.choice(_DOMAIN),
        "PHONE_NUMBER": lambda: rng.choice((f"0{_digits(rng, 3)} {_digits(rng, 7)}", f"+49 {_digits(rng, 3)} {_digits(rng, 6)}", f"({_digits(rng, 3)}) {_digits(rng, 3)}-{_digits(rng, 4)}", f"+1-{_digits(rng, 3)}-{_digits(rng, 3)}-{_digits(rng, 4)}", f"07{_digits(rng, 9)}")),
        "API_KEY": lambda: rng.choice(("sk-", "sk-proj-", "ghp_", "xoxb-", "AKIA", "glpat-", "pk_live_", "hf_", "AIza")) + _token(rng, rng.randint(16, 40)),
        "PASSWORD": lambda: rng.choice((_token(rng, rng.randint(8, 12)), f"{first.lower()}{_digits(rng, 4)}!", f"{rng.choice(_CITY)}#{_digits(rng, 2)}", "hunter" + _digits(rng, 3))),
        "USERNAME": lambda: rng.choice((f"{first.lower()}{_digits(rng, 2)}", f"{first[0].lower()}{re.sub('[^a-z]', '', last.lower())}", f"{first.lower()}_{_digits(rng, 3)}")),
        "IP_ADDRESS": lambda: ".".join(str(rng.randint(1, 254)) for _ in range(4)),
        "IBAN_CODE": lambda: rng.choice(("DE", "FR", "GB", "NL", "AT")) + _digits(rng, 2) + rng.choice(("", " ")).join(_digits(rng, 4) for _ in range(4)),
        "CREDIT_CARD": lambda: rng.choice(("", " ", "-")).join([rng.choice("45") + _digits(rng, 3), *(_digits(rng, 4) for _ in range(3))]),
        "STREET_ADDRESS": lambda: rng.choice((f"{rng.randint(1, 220)} {rng.choice(_STREET)}, {rng.choice(_CITY)}", f"{rng.choice(_STREET)} {rng.randint(1, 90)}, {_digits(rng, 5)} {rng.choice(_CITY)}")),
        "DATE_OF_BIRTH": lambda: rng.choice((f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.{rng.randint(1940, 2010)}", f"{rng.randint(1940, 2010)}-0{rng.randint(1, 9)}-{rng.randint(10, 28)}", f"{rng.choice(('March', 'May', 'July'))} {rng.randint(1, 28)}, {rng.randint(1940, 2010)}")),
        "NATIONAL_ID": lambda: f"{_digits(rng, 3)}-{_digits(rng, 2)}-{_digits(rng, 4)}",
        "PASSPORT_NUMBER": lambda: rng.choice(string.ascii_uppercase) + _digits(rng, 8),
        "LOCATION": lambda: rng.choice(_CITY),
        "ORGANIZATION": lambda: rng.choice(_ORG),
        "AGE": lambda: str(rng.randint(18, 90)),
    }  # fmt: skip
    return makers[kind]()


def personal(rng: random.Random) -> tuple[str, list[tuple[int, int, str]]]:
    """A sentence with its spans (start, end, type), which may be none."""
    template = rng.choice(TEMPLATES)
    text, spans, at = "", [], 0
    for slot in _SLOT.finditer(template):
        text += template[at : slot.start()]
        value = _value(slot.group(1), rng)
        spans.append((len(text), len(text) + len(value), slot.group(1)))
        text += value
        at = slot.end()
    return text + template[at:], spans
