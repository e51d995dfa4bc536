"""Prompts of the ten general tasks, in the many ways people type them."""

# ruff: noqa: E501 - lists of example sentences read better unbroken
from __future__ import annotations

import random

from models.synthetic import more
from models.synthetic.grammar import Grammar, expand
from models.synthetic.topics import TOPICS


def _lines(text: str) -> list[str]:
    return [line.strip().replace("\\n", "\n") for line in text.strip().splitlines()]


SLOTS: Grammar = {
    "topic": [topic for topics in TOPICS.values() for topic in topics],
    "lang": [
        "Python",
        "JavaScript",
        "TypeScript",
        "Java",
        "C++",
        "C",
        "C#",
        "Go",
        "Rust",
        "PHP",
        "Ruby",
        "Kotlin",
        "Swift",
        "SQL",
        "bash",
        "R",
        "MATLAB",
        "Scala",
        "Haskell",
        "Lua",
        "PowerShell",
        "Perl",
    ],
    "tongue": [
        "French",
        "German",
        "Spanish",
        "Italian",
        "Japanese",
        "Chinese",
        "Arabic",
        "Hindi",
        "Portuguese",
        "Russian",
        "Turkish",
        "Dutch",
        "Polish",
        "Korean",
        "English",
        "Swedish",
    ],
    "who": [
        "a detective",
        "two old friends",
        "a dragon who hates fire",
        "my grandmother",
        "a robot butler",
        "an astronaut",
        "a shy vampire",
        "a lighthouse keeper",
        "a talking dog",
        "a knight",
        "a time traveller",
        "a failed magician",
        "twins",
        "an elf queen",
        "a taxi driver",
        "a space pirate",
        "Sherlock Holmes",
        "Harry Potter and Draco",
        "a lonely teacher",
        "a ghost",
    ],
    "place": [
        "on Mars",
        "in Victorian London",
        "in a small village",
        "during the war",
        "in a haunted hotel",
        "at sea",
        "in a high school",
        "in a dystopian city",
        "under water",
        "in ancient Rome",
        "on a night train",
        "in a bakery",
        "in space",
        "in the desert",
        "in a fantasy kingdom",
    ],
    "mood": [
        "funny",
        "sad",
        "romantic",
        "spooky",
        "epic",
        "heart-warming",
        "dark",
        "absurd",
        "melancholic",
        "light-hearted",
        "dramatic",
        "rhyming",
        "surreal",
        "short",
        "wholesome",
    ],
    "form": [
        "a poem",
        "a short story",
        "a haiku",
        "a limerick",
        "a song",
        "rap lyrics",
        "a monologue",
        "a screenplay scene",
        "a fairy tale",
        "a sonnet",
        "a love letter",
        "a bedtime story",
        "a stand-up routine",
        "a speech for a wedding",
        "a blog post",
        "fan fiction",
        "a diary entry",
        "a dialogue",
        "the first chapter of a novel",
        "an advertisement slogan",
        "a product name list",
        "an Instagram caption",
        "a toast",
        "a parody",
        "a riddle",
        "a villain backstory",
        "dnd campaign ideas",
        "a tagline",
        "a tweet",
        "a cover letter",
        "a birthday message",
        "an opening paragraph",
    ],
    "event": [
        "my sister's wedding",
        "a retirement party",
        "the office Christmas party",
        "my friend's 30th birthday",
        "a farewell",
        "a graduation",
        "Mother's day",
        "an anniversary",
        "a funeral",
        "a product launch",
    ],
    "task": [
        "reverses a linked list",
        "downloads all images from a web page",
        "sorts a list of dictionaries by date",
        "renames files in a folder",
        "parses a CSV and sums a column",
        "sends an email with an attachment",
        "checks if a string is a palindrome",
        "connects to a Postgres database",
        "scrapes prices from a site",
        "resizes images",
        "computes Fibonacci numbers",
        "validates email addresses",
        "implements a LRU cache",
        "plays tic tac toe",
        "shows a login form",
        "converts Celsius to Fahrenheit",
        "merges two sorted arrays",
        "draws a bar chart",
        "uploads files to S3",
        "counts words in a text file",
        "reads data from a serial port",
        "calls a REST API with retry",
        "groups rows by month",
        "generates random passwords",
        "finds duplicates",
        "implements quicksort",
        "paginates results",
        "watches a folder for changes",
        "turns a nested JSON into a table",
        "finds the longest common prefix",
        "solves sudoku",
        "simulates a queue",
        "rotates a matrix",
        "animates a button on hover",
        "moves the player with arrow keys",
        "encrypts a file",
        "removes null rows",
        "creates a todo list",
    ],
    "app": [
        "todo app",
        "snake game",
        "chat server",
        "landing page",
        "discord bot",
        "telegram bot",
        "web scraper",
        "REST API",
        "CLI tool",
        "weather widget",
        "calculator",
        "login page",
        "VS Code extension",
        "Chrome extension",
        "Unity character controller",
        "Flask app",
        "React component",
        "Dockerfile",
        "GitHub action",
        "Terraform module",
        "cron job",
        "regex",
        "SQL query",
        "Excel formula",
        "Arduino sketch",
        "Makefile",
        "unit test suite",
        "data pipeline",
        "shader",
        "Google sheets script",
    ],
    "error": [
        "TypeError: cannot read properties of undefined (reading 'map')",
        "NullPointerException",
        "segmentation fault (core dumped)",
        "IndexError: list index out of range",
        "KeyError: 'id'",
        "ModuleNotFoundError: No module named 'requests'",
        "undefined reference to `main'",
        "CORS policy: No 'Access-Control-Allow-Origin' header",
        "error TS2322: Type 'string' is not assignable to type 'number'",
        "borrow of moved value",
        "deadlock found when trying to get lock",
        "OOMKilled",
        "fatal: refusing to merge unrelated histories",
        "Uncaught SyntaxError: Unexpected token",
        "StackOverflowError",
        "permission denied (publickey)",
        "404 on refresh",
        "RuntimeError: CUDA out of memory",
        "ValueError: shapes (3,4) and (3,) not aligned",
        "panic: runtime error: invalid memory address",
        "ImportError: cannot import name",
        "Connection refused",
        "500 internal server error",
    ],
    "thing": [
        "my function",
        "this code",
        "my script",
        "this query",
        "my React app",
        "the build",
        "my program",
        "our pipeline",
        "the docker container",
        "my loop",
        "this regex",
        "my class",
        "the unit test",
        "this method",
        "my website",
        "my pandas merge",
    ],
    "doc": [
        "README",
        "API reference",
        "user guide",
        "docstring",
        "changelog",
        "release notes",
        "design doc",
        "technical specification",
        "runbook",
        "onboarding guide",
        "installation instructions",
        "how-to guide",
        "standard operating procedure",
        "JSDoc comments",
        "OpenAPI description",
        "architecture decision record",
        "wiki page",
        "requirements document",
        "test plan",
        "FAQ page",
        "user manual",
        "contributing guide",
        "troubleshooting section",
        "whitepaper outline",
        "meeting minutes template",
        "data dictionary",
        "incident report template",
        "project proposal document",
    ],
    "project": "our payments API|a small {lang} library|the mobile app|an internal CLI|the new onboarding process|a backup service|our login microservice|a smart thermostat|the data warehouse|a machine learning model we deployed|the lab equipment|a school project|the HR portal|our coffee machine|a REST endpoint /users/{id}|this module|my open source project|the company VPN|an order management system".replace(
        "{id}", "ID"
    ).split("|"),
    "dilemma": [
        "buying or renting a flat",
        "moving to Berlin or Madrid",
        "a job offer with less pay but remote work",
        "leasing versus buying a car",
        "going back to university at 35",
        "closing the older shop",
        "switching our team to a four-day week",
        "adopting AI in a small law firm",
        "nuclear versus solar power",
        "building or buying our CRM",
        "a carbon tax",
        "hiring freelancers or staff",
        "investing in index funds or property",
        "opening a second restaurant",
        "raising prices by 15%",
        "moving our stack from AWS to our own servers",
    ],
    "plan": [
        "a 7 day trip to Italy",
        "a marathon in 16 weeks",
        "a product launch",
        "a wedding for 80 guests on 10k",
        "learning German to B1 in a year",
        "migrating 40 services to Kubernetes",
        "losing 8 kilos safely",
        "paying off 20k debt",
        "a home renovation",
        "a fundraising campaign",
        "moving abroad with two kids",
        "a weekly meal plan for a family of four",
        "a study schedule for finals",
        "a community garden",
        "an email marketing strategy for a gym",
    ],
    "person": [
        "the first president of the USA",
        "Marie Curie",
        "the current UN secretary general",
        "the author of Dune",
        "the inventor of the telephone",
        "the CEO of Sony",
        "Mozart's wife",
        "the lead singer of Queen",
        "Freddie Mercury",
        "the director of Alien",
        "the tallest man ever",
        "Ada Lovelace",
    ],
    "fact": [
        "the capital of Australia",
        "the height of Mount Everest",
        "the population of Canada",
        "the boiling point of ethanol",
        "the largest ocean",
        "the currency of Sweden",
        "the meaning of 'ubiquitous'",
        "the national animal of Scotland",
        "the chemical symbol of tin",
        "the distance to the moon",
        "the time zone of Lisbon",
        "the oldest university",
        "the number of bones in the body",
        "the opening year of the Eiffel Tower",
        "the plural of octopus",
        "the longest bridge in the world",
        "a synonym for happy",
        "the area code of Paris",
        "the record for 100 m",
    ],
    "passage": [
        "The council voted on Tuesday to extend the tram line to the harbour. Work begins in March and should take two years, officials said, at a cost of 40 million.",
        "Dear team, due to the storm the office stays closed on Friday. Please work from home and check that your laptop is charged. Anna will share the phone list.",
        "Coffee consumption has been linked with a lower risk of several diseases, although researchers warn that the studies are observational and cannot prove cause and effect.",
        "Q3 revenue rose 12% to $4.1m, driven by renewals. Churn fell to 3.2%. Hiring is paused until January, and the board meets on 14 December.",
        "The museum was founded in 1871 by a group of merchants. It moved twice before settling in its present building, a former grain store by the river.",
        "I woke up late, missed the bus, and when I finally arrived the meeting was over. My boss just smiled and said we would talk tomorrow.",
        "Solar panels convert light to electricity. Their efficiency has risen from 6% in 1954 to more than 22% today, while prices fell by 90% in a decade.",
        "Patient reports headaches for three weeks, worse in the morning, no fever. Takes paracetamol 500 mg when needed. Follow-up in two weeks.",
        "Yesterday's match ended 2-2 after a late penalty. The coach blamed the referee, but fans praised the young goalkeeper who saved two shots.",
        "The old man walked along the shore every evening. Nobody knew what he was looking for, and he never told them.",
    ],
    "data": [
        "apples 3, pears 5, plums 11",
        "Anna 34, Ben 29, Carla 41",
        "Jan 120, Feb 98, Mar 143",
        "red; blue; blue; green; red",
        "2021-03-04, 2020-11-30, 2022-01-15",
        "tom@x.org wrote to Lisa Meyer in Bonn on Friday",
        "[3, 17, 2, 88, 41]",
    ],
    "pol": [
        "",
        "please ",
        "pls ",
        "Could you ",
        "can you ",
        "I need you to ",
        "hey, ",
        "Hi! ",
        "I'd like you to ",
        "would you kindly ",
        "ok now ",
        "help me ",
        "",
    ],
    "device": [
        "lights",
        "heating",
        "TV",
        "bedroom lamp",
        "thermostat",
        "garage door",
        "speaker",
        "air conditioner",
        "blinds",
        "coffee machine",
        "alarm",
        "vacuum",
    ],
    "when": [
        "tomorrow at 7",
        "on Friday",
        "in ten minutes",
        "next Monday morning",
        "tonight",
        "at 6:30 am",
        "in two hours",
        "this weekend",
        "on the 5th",
    ],
    "city": [
        "Boston",
        "Hamburg",
        "Lyon",
        "Osaka",
        "Denver",
        "Naples",
        "Toronto",
        "Leeds",
        "Porto",
        "Austin",
        "Prague",
        "Mumbai",
        "Seoul",
    ],
    "contact": [
        "mom",
        "John",
        "my boss",
        "Sarah",
        "the dentist",
        "Uncle Ray",
        "my roommate",
        "Dr. Patel",
        "the plumber",
    ],
    "song": [
        "jazz",
        "my workout playlist",
        "the new Adele song",
        "something relaxing",
        "90s rock",
        "the next track",
        "Bohemian Rhapsody",
        "lo-fi beats",
    ],
    "num": ["{number}", "{number}", "{number}.5", "3/4", "1,200", "15%"],
}

GENERAL: dict[str, list[str]] = {
    "creative_writing": _lines("""
        {pol}write {form} about {topic}
        {pol}write {form} about {who} {place}
        Write me a {mood} story about {who} and {who} {place}.
        {pol}come up with {form} where {who} meets {who}
        tell me a {mood} story {place}
        i need {form} for {event}, make it {mood}
        Compose {form} in the style of Shakespeare about {topic}
        make up {form} with {who} as the main character
        Continue this story: It was past midnight when {who} heard the door open {place}.
        continue the story: "{passage}"
        Roleplay as {who}. I will talk to you and you stay in character.
        You are {who} {place}. Describe what you see in a {mood} tone.
        Let's do a role play: you are {who}, I am {who}. You start.
        Give me 10 names for {who} in my novel
        suggest plot ideas for a {mood} novel set {place}
        brainstorm titles for my book about {who}
        Rewrite the ending of Romeo and Juliet so that it is {mood}
        Imagine a conversation between {who} and {who} about {topic}
        write {form} from the perspective of {who}
        help me write a speech for {event}
        Write a catchy slogan for a {mood} coffee brand
        Create a character sheet for {who}, with flaws and a secret
        write a {mood} email to my neighbours inviting them to {event}
        Draft a LinkedIn post in which I announce {event}
        I want a {mood} video script about {topic}, 60 seconds
        write lyrics for a {mood} country song about {topic}
        Describe a sunset {place} using all five senses.
        Invent a new holiday and describe how people celebrate it.
        Write a joke about {topic}
        Can you make {form} that rhymes with my name, Bella?
        Please write a review of an imaginary restaurant {place}
        Make the following more vivid and poetic: "The old house stood on the hill."
        Create a midjourney prompt for an image of {who} {place}
        Write a persuasive essay that {topic} should be taught in school
        Give me creative Halloween costume ideas for {who}
        Write an obituary for my goldfish
        a {mood} poem about {topic}
        {form} about {who}
        Write a cover letter for a job as a barista, I have two years experience
        write a youtube script on {topic} with a hook at the start
        Write a blog article about {topic}, friendly tone, 600 words
        Write the dialog for a comic strip: {who} orders pizza.
        I'm writing a novel. {who} must find out the secret {place}. What could the twist be?
        Compose a thank-you note to my teacher
        Worldbuilding: describe the religion of a people living {place}
        Write a fictional news report: {who} elected mayor
        """),
    "complex_analysis": _lines("""
        {pol}analyse the pros and cons of {dilemma}
        Should I decide for {dilemma}? Walk me through your reasoning.
        What are the long-term consequences of {dilemma}?
        {pol}make a plan for {plan}
        Create a detailed plan for {plan} with risks and a timeline.
        plan {plan}
        Compare and contrast {topic} and {topic}, and discuss which matters more today.
        Critically evaluate the claim that {topic} changed the world.
        How might {topic} develop over the next 20 years? Consider several scenarios.
        Discuss the ethical implications of {topic}
        What would be the best strategy for {plan}? Weigh the alternatives.
        I can't decide about {dilemma}. My budget is {number}k and I have a family. What would you do and why?
        Give me arguments for and against {dilemma}
        Evaluate this argument: everyone I know likes {topic}, so it must be good.
        three people need to cross a bridge at night with one torch, they take 1, 4 and 9 minutes. what is the fastest way?
        A is taller than B, C is shorter than B but taller than D. Who is second shortest? Explain.
        If all bloops are razzies and some razzies are lazzies, are some bloops lazzies?
        Anna sits left of Ben, Carl is not next to Anna, Dora is at the end. In what order do they sit?
        One of the three says the truth: Tim says Ann lies, Ann says Bob lies, Bob says both lie. Who is honest?
        You have 12 coins, one is fake. Find it with three weighings.
        Analyse the motives of the main character in Hamlet
        Assess the impact of {topic} on society.
        do a SWOT analysis of a small bakery
        Design an experiment to test whether {topic} affects sleep.
        What are the trade-offs between {topic} and {topic} for a startup with 5 people?
        why did {topic} happen, what were the underlying causes, and could it happen again?
        I feel stuck in my career as a nurse. Help me think through my options.
        my girlfriend wants kids and i don't. how should I think about this?
        Given these symptoms, what could it be and what should I do next: tired, cold hands, hair loss?
        What are the root causes of {topic}? Prioritise them.
        Build a decision matrix for {dilemma}
        Interpret these results: conversions {number} vs {number}, bounce rate up 8%. What should we change?
        how would you convince a sceptical board about {dilemma}
        Suggest a weekly schedule that balances work, two kids and {plan}
        Give me a workout plan for someone with bad knees
        what are some strategies to improve focus when working from home and which one would suit a parent
        Our users drop off at checkout. Form hypotheses and say how you would test each.
        Explain the strengths and weaknesses of the main theories on {topic}.
        How does {topic} relate to {topic}? Argue your point of view.
        propose a solution for traffic jams in {city} and discuss side effects
        estimate how many piano tuners there are in {city}
        Explain to me like I am five why {topic} matters and what follows from it
        Act as a consultant: our margins fell from 30% to 22%. What do you look at first?
        What lessons can managers draw from {topic}?
        As a newly hired head of marketing, what would your first 90 days look like?
        Recommend a laptop for video editing under 1500, and explain the trade-offs.
        What gift should I get my dad who loves fishing and hates clutter? Reason it out.
        Outline a research proposal on {topic}
        """),
    "factual_qa": _lines("""
        what is {fact}
        What's {fact}?
        who is {person}
        Who was {person}?
        when was {person} born
        {fact}?
        how old is {person}
        Do you know {fact}?
        which country has the most lakes
        how many moons does Jupiter have
        What does 'schadenfreude' mean?
        What is the definition of {topic}?
        define {topic}
        What is {topic}?
        what are {topic}
        who discovered penicillin
        when did world war 2 end
        where is Timbuktu
        Is a tomato a fruit?
        True or false: bats are blind.
        how many ounces in a pound
        Which is bigger, a hectare or an acre?
        name three rivers in Germany
        List the planets in order.
        List five facts about {topic}.
        In which year did {person} die?
        {pol}tell me {fact}
        What are the symptoms of flu?
        which band released Abbey Road
        why do cats purr
        Why is the sea salty?
        what does NASA stand for
        is it safe to eat raw salmon
        How long does it take to boil an egg?
        what kind of animal is an axolotl
        What's the difference between a crocodile and an alligator?
        Who won the world cup in 2014?
        name the members of the Beatles
        What language do they speak in {city}?
        is {city} bigger than Boston
        what is the best temperature for baking bread
        Explain {topic}
        explain what {topic} is in two sentences
        Tell me about {topic}
        give me an overview of {topic}
        how does {topic} work
        What are the main types of {topic}?
        Give me some examples of {topic}
        Why is {topic} important?
        How did {topic} start?
        what happened in 1989 in Germany
        Which of these is not a primate: gorilla, lemur, squirrel, baboon?
        what do you call a baby goat
        Was Einstein ever married?
        Can dogs eat grapes?
        """),
    "summarize_translate_extract": _lines("""
        {pol}summarize this: {passage}
        {pol}translate to {tongue}: {passage}
        how do you say "where is the station" in {tongue}
        {passage}\\n\\nSummarize the text above in one sentence.
        tldr: {passage}
        {pol}give me the key points of the following text.\\n\\n{passage}
        Extract all names and numbers from this text: {passage}
        Put this into a table: {data}
        sort this list alphabetically: {data}
        Convert this to JSON: {data}
        {pol}rewrite this in simpler words: {passage}
        {pol}proofread and fix grammar: {passage}
        paraphrase: "{passage}"
        Make this shorter and more formal:\\n{passage}
        Rephrase the following email so it sounds polite: {passage}
        Is the sentiment of this positive or negative? {passage}
        Classify the following text as news, email or story: {passage}
        {passage}\\nWhat is the main idea?
        Based on the text, answer: who is mentioned? {passage}
        Read the passage and answer the question.\\nPassage: {passage}\\nQuestion: When does it start?
        Given this paragraph, list the dates in it. {passage}
        Translate "{topic}" into {tongue}
        what is the {tongue} word for butterfly
        bullet points please: {passage}
        What does the following text say about costs?\\n"{passage}"
        Reformat as CSV: {data}
        find a title for this paragraph: {passage}
        turn this into a tweet-length summary\\n\\n{passage}
        correct my english: i has went to the shop yesterday and buyed two bread
        Improve the wording: "{passage}"
        translate the following sentence into {tongue}. "I will be late because the train was cancelled."
        Which of the words in this list are animals? {data}, dog, cat, table
        Extract the action items from these notes: {passage}
        Summarise the plot of Moby Dick in three sentences
        Give me a summary of the book 1984
        Remove the duplicates from: {data}
        Count how often the letter e occurs in: {passage}
        Detect the language of this sentence: "Dove si trova la stazione?"
        Tag the parts of speech in: The quick brown fox jumps.
        Please make a timeline of the events in: {passage}
        Fill in the blank: The boy ___ to school every day.
        Change this to passive voice: The dog chased the cat.
        Given the reference text, what year was it? {passage}
        From the review below tell me the product and the rating. "Great kettle, boils fast, 4 stars."
        """),
    "documentation": _lines("""
        {pol}write a {doc} for {project}
        {pol}draft a {doc} about {project}
        Create a {doc} for {project}, with sections and examples.
        {pol}help me structure a {doc} for {project}
        What should a good {doc} contain?
        give me a template for a {doc}
        Turn these bullet points into a {doc}: supports SSO, runs nightly, needs 2 GB RAM
        add docstrings to this function
        I have to document {project}. Write the introduction and the setup section.
        Write a step-by-step guide to installing {project} on Windows and Linux.
        Generate a markdown {doc} for {project}
        Explain in a {doc} how to configure {project}
        improve this {doc}: "To start, run the thing. Then click."
        Write an SOP for cleaning {project}
        produce a technical document describing how {project} handles authentication
        Document the parameters of the endpoint POST /orders with a table
        We shipped {project} 2.0 with dark mode and bug fixes. Write the release notes.
        {doc} for {project}
        we need a {doc} that new colleagues understand, for {project}
        Please write developer documentation for {project}, audience: juniors
        write comments for the code in {project}
        Fill in this {doc} template for {project}
        Create a user manual chapter on how to reset {project}
        Prepare a validation protocol document for {project} with acceptance criteria
        Draft the functional requirements for {project}
        Could you write a knowledge base article about resetting the password in {project}?
        Outline the table of contents of a {doc} for {project}
        """),
    "small_talk": _lines("""
        hi
        hey there
        hello, how are you?
        good morning!
        yo what's up
        how's it going
        thanks, that was helpful
        thank you so much!!
        ok bye
        see you tomorrow
        are you a human or a robot
        do you dream
        what's your name
        who made you
        i'm bored
        I had a great day today
        I'm feeling a bit sad tonight
        lol that's funny
        haha nice
        do you like music?
        what do you do for fun
        tell me something interesting
        tell me a joke
        how old are you
        you are so smart
        I love you
        do you have feelings
        can we just chat?
        My dog is sitting on my lap right now :)
        happy new year!
        what can you do?
        what's your favourite food
        I just got back from holiday, it was lovely
        Good night, talk later
        nice to meet you, I'm Sam
        sorry, I was just testing you
        test
        are you there?
        What do you think about me?
        wyd
        I hate mondays
        guess what, I got the job!
        do you get tired of questions
        Where do you live?
        what is the meaning of life lol
        okay cool
        can I ask you something
        you're welcome
        i like pizza. do you?
        what are your hobbies
        is it raining where you are
        let's talk
        I'm back
        so what's new with you
        """),
    "other": _lines("""
        turn {device} off
        switch on the {device}
        {pol}set an alarm {when}
        remind me to call {contact} {when}
        {pol}play {song}
        what's the weather in {city} {when}
        call {contact}
        text {contact} that I'm running late
        book a table for four {when}
        find a flight from {city} to {city} {when}
        add milk and eggs to my shopping list
        what's on my calendar {when}
        start a timer for {number} minutes
        navigate to {city}
        how's the traffic to {city}
        order a pizza with extra cheese
        turn the volume up
        skip this song
        where is my phone
        get me a taxi {when}
        schedule a meeting with {contact} {when}
        cancel my reservation {when}
        what time is it in {city}
        roll a dice
        flip a coin
        dim the {device} to {number} percent
        open the garage
        read my messages
        send an email to {contact}
        rent a car in {city} {when}
        post this photo to my story
        lock the front door
        set the {device} to 21 degrees
        show me nearby restaurants
        is there a gas station near here
        change your language to {tongue}
        speak slower
        update my to do list, remove laundry
        what's playing in cinemas in {city}
        buy two tickets for the game {when}
        put {contact} on speaker
        when is my next oil change due
        asdfghjkl
        ??
        ...
        12345
        """),
    "math_reasoning": _lines("""
        what is {num} times {num}
        calculate {number} / {number}
        {number} + {number} * {number}
        Solve for x: {number}x - {number} = {number}
        solve x^2 - 5x + 6 = 0
        What is {number}% of {number}?
        A shop sells pens at {number} cents each. How much do {number} pens cost?
        If a train travels {number} km in 3 hours, what's its average speed?
        Tom has {number} apples and gives away {number}. He then buys twice as many as he has left. How many now?
        Find the derivative of x^3 sin(x)
        integrate 1/(1+x^2) from 0 to 1
        What's the probability of two sixes in three throws?
        prove that the square root of 2 is irrational
        Prove that the sum of two even numbers is even.
        find the area of a triangle with sides 5, 12 and 13
        how many ways can 8 people sit at a round table
        i bought a phone for {number} and sold it for {number}, what's my profit in percent
        What comes next: 2, 6, 12, 20, 30?
        Compute the eigenvalues of [[2,1],[1,2]]
        Simplify (3a^2b)^3 / (9ab)
        If I save {number} a month at 4% interest, what do I have after 10 years?
        Let f(x) = 3x + 2. What is f(f({number}))?
        Evaluate the limit of sin(x)/x as x goes to 0
        The sum of three consecutive integers is {number}. Find them.
        half my age plus {number} is 40. how old am I?
        A rectangle is twice as long as wide, its perimeter is {number}. Find the area.
        how many minutes are there in 3.5 days
        convert {number} degrees to radians
        Show that n^3 - n is divisible by 6
        Mary reads {number} pages a day from a {number} page book. On what day does she finish?
        what is the gcd of {number} and {number}
        {number} workers build a wall in {number} days. How long do 3 workers need?
        Determine the standard deviation of 4, 8, 15, 16, 23, 42
        help with my homework: 3(x-2) = 2x + {number}
        Let G be a group of order {number}. Show that it has an element of prime order.
        split a bill of {number} between 7 people with a 15% tip
        """),
    "code_generation": _lines("""
        {pol}write a {lang} function that {task}
        {pol}write code in {lang} which {task}
        {lang} script that {task}
        create a {app} in {lang}
        {pol}build a simple {app}
        how do i write a {app} that {task}
        how can I do this in {lang}: something that {task}
        Implement a class in {lang} that {task}. Add type hints.
        make me a {app} with html and css
        Write a {app} that {task}.
        generate a {lang} snippet that {task}
        give me a one-liner in {lang} that {task}
        I want a program that {task}. Use {lang}.
        Convert this pseudo code to {lang}: for each item, if item > 3 print it
        {lang}: how to loop over a map and print the values
        Write an SQL query to get the top 5 customers by revenue
        excel formula to count cells that contain "yes"
        Write unit tests for a function that {task}
        write a regex which matches phone numbers
        code for a {app}
        need a {app} asap, it {task}
        Using {lang}, define a method that {task} and returns None on failure.
        Can you code a {app} for me? It should have a dark theme.
        Add a feature to my {app}: it also {task}.
        translate this {lang} function to {lang}: it {task}
        Given an array of integers, return the indices of the two numbers that add up to a target.
        You are given a string s. Return the length of the longest substring without repeating characters.
        Complete the function below so that it {task}.
        Write a Dockerfile for a Node app
        implement dijkstra in {lang}
        Set up a github workflow that runs tests on every push
        how to center a div
        Create a stored procedure that {task}
        Show me an example of async/await in {lang}
        scaffold a {app} with authentication
        What is the {lang} code to read a file line by line?
        write a pandas snippet that {task}
        Write a program that prints the numbers 1 to 100 but Fizz for multiples of three
        """),
    "code_review_debug": _lines("""
        why do I get {error}?
        {thing} throws {error}, how do I fix it
        {error} when I run {thing}
        {thing} doesn't work, it returns None instead of a list
        help me debug {thing}, it prints nothing
        {pol}review {thing} for bugs and style
        Can you spot the mistake in {thing}?
        {thing} is too slow with 1 million rows, optimise it
        refactor {thing} to be more readable
        what's wrong with {thing}? it worked yesterday
        My tests fail with {error} after I upgraded {lang}. What changed?
        getting {error} in {lang}
        {pol}fix {error} in {thing}
        Is {thing} thread safe?
        why is {thing} always false here
        Explain what {thing} does line by line
        Stack trace:\\n{error}\\n  at main ({lang})\\nWhat does it mean?
        {thing} works locally but not in production: {error}
        npm install fails with {error}
        Can {thing} be exploited? Please do a security review.
        code review please: {thing} has 200 lines and no tests
        improve the performance of {thing}
        There's an off by one error somewhere in {thing}, find it.
        my {app} crashes with {error}
        I expected 5 but {thing} gives 4. Why?
        Is there a better way to write {thing} in {lang}?
        memory keeps growing in {thing}, where is the leak
        clean up {thing} according to SOLID
        git says {error}, what do I do
        """),
}

FOLLOW_UPS = [
    "and in {lang}?",
    "can you make it shorter?",
    "why?",
    "what about {city}?",
    "another one please",
    "more",
    "continue",
    "go on",
    "and for beginners?",
    "in {tongue} please",
    "explain that again",
    "can you give an example",
    "shorter",
    "make it {mood}",
    "are you sure?",
    "now with {num} instead",
    "and the second one?",
    "ok and then?",
    "that's not what I meant, try again",
    "can you do the same for the other one",
    "what does that mean?",
    "rewrite it",
    "please expand the last part",
    "and what if it is twice as big?",
    "Thanks! Now do one more.",
    "is that correct",
    "use a different approach",
    "tell me more about that",
    "same but for {who}",
    "no, the other way round",
    "it still does not work",
    "still the same problem",
    "yes please",
    "ok do it",
    "sure, go ahead",
    "do you have more details on this?",
    "and after that?",
    "how so?",
    "which one is better?",
]


SLOTS = {**SLOTS, **more.SLOTS}
GENERAL = {label: prompts + more.GENERAL.get(label, []) for label, prompts in GENERAL.items()}


def general_prompt(label: str, rng: random.Random) -> str:
    """One prompt of a general task."""
    return expand(rng.choice(GENERAL[label]), SLOTS, rng)


def follow_up(rng: random.Random) -> str:
    """A newest turn that means nothing without the turns before it."""
    return expand(rng.choice(FOLLOW_UPS), SLOTS, rng)
