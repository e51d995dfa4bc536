"""Customer-support messages in people's own words, for the eight `cs_*` intents."""

# ruff: noqa: E501 - lists of example sentences read better unbroken
from __future__ import annotations

import random

from models.synthetic.grammar import Grammar, expand

SLOTS: Grammar = {
    "item": [
        "running shoes",
        "a blender",
        "the blue sweater",
        "my new phone",
        "a laptop sleeve",
        "headphones",
        "the sofa",
        "a bike helmet",
        "the coffee grinder",
        "a dress",
        "the gaming chair",
        "a mattress",
        "two lamps",
        "the printer",
        "concert tickets",
        "vitamins",
        "a tent",
        "the smart watch",
        "my glasses",
        "a toy train",
    ],
    "when": [
        "yesterday",
        "last week",
        "on Monday",
        "three days ago",
        "two weeks ago",
        "this morning",
        "a month ago",
        "before Christmas",
    ],
    "hi": [
        "",
        "",
        "",
        "",
        "Hi, ",
        "Hello, ",
        "hey, ",
        "Hi there! ",
        "Good morning, ",
        "Dear team, ",
        "excuse me, ",
        "ok so ",
    ],
    "bye": [
        "",
        "",
        "",
        "",
        "",
        " Thanks.",
        " thx",
        " Please help.",
        " Regards, Tina",
        " Can you look into it?",
        " asap please",
        " Thank you in advance!",
    ],
    "amount": ["$49.99", "12 euros", "£30", "$5", "99 bucks", "149.00 EUR", "twenty dollars"],
    "reason": [
        "it doesn't fit",
        "it arrived broken",
        "I changed my mind",
        "it's the wrong colour",
        "the zip is broken",
        "it's not what the picture showed",
        "I found it cheaper",
        "it stopped working after two days",
        "I ordered two by mistake",
        "a part is missing",
    ],
    "plan": ["premium", "basic", "family", "student", "pro", "free"],
    "place": ["my new flat", "my office", "my sister's house", "another city", "a pick-up point", "the old address"],
}
MESSAGES: dict[str, str] = {
    "cs_account": "i can't log in anymore{bye}|{hi}I forgot my password{bye}|how do i change my email address in my profile|{hi}please delete my account and all my data|the verification code never arrives|my account is locked after three attempts{bye}|how can i sign up for an account|I want to upgrade to the {plan} plan|switch me to a {plan} account|someone else has logged into my account{bye}|can I have two users on one account?|reset link expired again|{hi}I'd like to update my phone number|why does it say my username is taken|unsubscribe me from the newsletter|how do I turn on two-factor login|can't verify my identity with the passport photo|i want to close my account|how do I change my PIN|sign-up form says error 12{bye}|merge my two accounts please|my profile shows the wrong name|register me for the newsletter|it doesn't accept my password even though it's right",
    "cs_billing": "{hi}I was charged twice for order {order}{bye}|what is this {amount} charge on my card|where can I download my invoice|{hi}the bill shows {amount} but it should be less{bye}|do you take PayPal or only cards?|my payment was declined, why|can I pay in instalments|why did the price of my subscription go up|I need a receipt with VAT for {item}|the promo code was not applied to my total{bye}|when will you debit my account|you took {amount} after my free trial ended|can I change my payment card|which payment methods are there|there's a payment I don't recognise from {when}|invoice for {order} please|my card was billed but the order failed|how do i get a copy of last month's bill|is there an extra fee for paying by credit card|Why is there a currency fee on my statement?|my direct debit bounced, what now|I'd like the invoice addressed to my company",
    "cs_complaint": "{hi}I am very disappointed with your service|this is the worst shop I've ever used|your driver threw my parcel over the fence{bye}|I have been waiting for an answer for two weeks, this is ridiculous|the quality of {item} is a joke|I want to make a complaint about one of your employees|your staff was rude to me on the phone {when}|how do i file a complaint|unbelievable, {reason} and nobody cares|I'm fed up with your app, it crashes all the time|you lied in your advertising{bye}|never again, three calls and still no solution|I'd like to lodge a formal complaint|Your support is useless|{item} came dirty and used, shame on you|I will leave a one star review if this goes on|terrible experience from start to end|I'm unhappy with how my case {order} was handled|where can I leave negative feedback|your chat bot is driving me crazy|the technician did not show up for the second time!",
    "cs_human_agent": "can I talk to a real person|agent please|{hi}let me speak to your manager|human|I don't want a bot, connect me with somebody|what's the phone number of customer service?|put me through to support|is there someone I can call|transfer me to a live agent{bye}|how do I contact customer service|when is your hotline open|I need to speak with a representative about {order}|operator|you don't understand me, get me a person|call me back please, my number is on file|live chat with a human?|could someone from the team ring me|I'd rather discuss this with staff|contact details of the service desk please|do you have an email for support|stop, I want to talk to someone who can decide|speak to a supervisor",
    "cs_order_change": "{hi}please cancel order {order}{bye}|I need to change the delivery address to {place}|can I add {item} to my order {order}|I ordered the wrong size, can you change it before it ships|cancel my order, I don't need it any more|I'd like to order {item}|swap {item} for a bigger one in order {order}|how do i place an order|remove one article from my basket order {order}|can I still modify my purchase|send it to {place} instead{bye}|change the quantity from 1 to 3 in {order}|is there a fee if I cancel now|move the delivery to {place}|I want to buy {item}, how does it work|I made a mistake in the shipping address|add a gift note to {order}|upgrade to express on my existing order|please hold my order until I'm back from holiday|I entered the wrong postcode at checkout|can i set up a second shipping address|stop the shipment of {order}, I cancel",
    "cs_order_status": "where is my order {order}|{hi}my parcel should have arrived {when}{bye}|when will {item} be delivered|has {order} shipped yet|the tracking page shows nothing new since {when}|track my package|how long does shipping take|what delivery options do you offer|any update on {order}?|{item} I ordered {when} still isn't here|the courier says delivered but I've got nothing{bye}|when does my card arrive|estimated arrival for {order}?|do you deliver on Saturdays|my order is stuck in customs{bye}|did you already send {item}|I got a shipping mail but no tracking number|why is the delivery so late|is express shipping possible for new orders?|how many days until my package gets here|only half of the order {order} arrived, where's the rest|status of purchase {order}",
    "cs_product_question": "does {item} come with a charger|is {item} waterproof?|{hi}what sizes do you have for {item}{bye}|do you have {item} in black|what's the difference between the {plan} and the {plan} plan|is {item} in stock|how heavy is {item}|can I use {item} outdoors|what material is it made of|is there a warranty on {item}|does the app work on Android tablets|what's the battery life|will {item} fit a small room|do you have shops in my city|is it suitable for kids under 3|which currencies does the card support|what limits apply to top-ups|can a 16 year old open one|do you sell gift cards|does it work with Alexa|how do I clean {item}|which one would you recommend, {item} or {item}?|is the {plan} version good enough for a team of five|can I use Apple Pay with it|how many disposable cards can I make|does {item} need assembly|when do you get {item} back in stock",
    "cs_returns": "{hi}I want to return {item}, {reason}{bye}|how do i send something back|I want my money back for {order}|what's your return policy|{reason}, can I get a refund?|where is my refund, I sent {item} back {when}{bye}|return label for {order} please|can I exchange {item} for another size|how long do I have to return things|refund still not on my account|{item} is faulty and I want a replacement or money back|do I have to pay the return shipping|can i return it in a store|I opened the box, can I still return {item}?|when will you refund the {amount}|I'd like a reimbursement of {amount}|is {item} refundable|I returned two of three things but got {amount} only|start a return for {order}|in which cases do I get my money back|refund status {order}|warranty claim: {item}, {reason}",
}
LABELS = tuple(sorted(MESSAGES))


def support_message(label: str, rng: random.Random) -> str:
    """One message for a `cs_*` label."""
    text = expand(rng.choice(MESSAGES[label].split("|")), SLOTS, rng)
    if rng.random() < 0.25:
        context = rng.choice(
            (
                "I ordered {item} {when}. ",
                "I've been a customer for years. ",
                "It's about order {order}. ",
                "My name is Paula Reed. ",
                "So {when} I bought {item} from you. ",
                "Sorry to bother you. ",
                "I'm writing from my phone. ",
            )
        )
        text = expand(context, SLOTS, rng) + text
    return text
