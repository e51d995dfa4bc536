"""Exam-style questions: what textbooks ask, on subjects that conversations seldom touch."""

# ruff: noqa: E501 - lists of example phrases read better unbroken
from __future__ import annotations

import random

from models.synthetic.topics import TOPICS

_RAW = {
    "biology": "the structure of a cell wall|operons in prokaryotes|Hardy-Weinberg equilibrium|a codon for methionine|plasmids|the lysogenic cycle|C4 plants|allopatric speciation|the electron transport chain|karyotypes|adenine and thymine base pairs|trophic levels|linkage maps|the Golgi apparatus|natural killer cells in an ecosystem of microbes|gametes|tissue of flowering plants|fossil evidence of evolution|restriction enzymes",
    "business": "market research methods|consumer behaviour and buying decisions|brand equity|a promotional mix|pricing strategy of new products|segmentation, targeting and positioning|distribution channels|customer satisfaction surveys|product life cycle|sales promotion|direct marketing|advertising media|corporate social responsibility of firms|leadership styles of managers|organisational structure|job design|human resource planning|whistle-blowing in a firm|insider trading rules at a company|B2B buyers|service quality",
    "chemistry": "the oxidation number of chromium|a first-order reaction|the ionisation energy of sodium|quantum numbers of an orbital|a strong acid titrated with a weak base|the heat capacity of water|the Nernst equation|NMR chemical shifts|the enthalpy of combustion|crystal field splitting|Beer-Lambert absorbance|the molar mass of a gas|Lewis structures|nucleophilic substitution|the freezing point of a solution|partition functions of molecules",
    "computer science": "supervised and unsupervised learning|kernel methods and support vector machines|k-nearest neighbours|the bias-variance trade-off|decision tree pruning|backpropagation|convolutional layers|L1 and L2 regularisation|maximum likelihood of a model|ROC curves of a classifier|expectation maximisation|Bayesian networks|buffer overflow attacks|symmetric ciphers|firewalls|a man in the middle|cross-site scripting|context-free grammars|pipelining in a CPU|page faults|mutex and semaphore|minimum spanning trees|boosting and random forests|attention in neural language models",
    "economics": "the natural rate of unemployment|the IS-LM model|heteroscedasticity in a regression|ordinary least squares estimators|stationary time series|instrumental variables|a perfectly competitive firm's supply curve|the marginal propensity to consume|open market operations|the federal funds rate|a price floor|the production possibilities frontier|a Nash equilibrium of firms|real GDP per head|the Lorenz curve|crowding out|cost-push inflation|multicollinearity|an ARMA process",
    "engineering": "a synchronous machine's reactance|transmission line impedance|the gain of a feedback amplifier|a full-wave rectifier|a Zener diode|shear force and bending moment|the friction factor of a pipe|the Nusselt number|a compressor's isentropic efficiency|mass transfer coefficients|phase and frequency modulation|a Wheatstone bridge|a lag compensator|a shunt motor's speed|radiation shape factors|open channel flow|logic gates in a half adder|the Nyquist criterion",
    "health": "viruses that cause hepatitis|the HIV reverse transcriptase in patients|vaccines against polio|retroviruses|Down syndrome|autosomal recessive disorders such as cystic fibrosis|genetic counselling|a 55-year-old man with chest pain|a woman with fever and cough|blood pressure drugs|the cranial nerves|the brachial plexus|bones of the wrist|vitamin deficiencies|dietary fibre and cholesterol|ageing and memory loss in the elderly|infection control by nurses|an ECG finding|insulin dosage|the incubation period of measles|prion disease in patients|muscle energy during exercise|glycaemic index of foods|hospital hygiene",
    "history": "passage from a speech by Robespierre|a letter by Columbus|the Congress of Vienna|the Edict of Nantes|the Peasants' War in Germany|the Glorious Revolution|a treaty between European powers|the abolition of serfdom in Russia|the Federalist era|Reconstruction|the Song dynasty's trade|the Gupta empire|the Meiji constitution|Upper Palaeolithic tools|Homo erectus finds|the rise of agriculture in Mesopotamia|Mayan cities|Mississippian mounds|the Enlightenment in Prussia|Ottoman reforms|the Suez crisis",
    "law": "theories of natural law|legal positivism of Hart|Dworkin on legal principles|Austin's command theory|customary international law|the International Court of Justice|treaties and reservations|diplomatic immunity|state responsibility|jurisdiction over ships on the high seas|the use of force under the UN Charter|refugee status|strict liability of a defendant|a motion to suppress evidence|the rule against perpetuities|a hearsay exception|a seller's breach under the UCC|equal protection|a landowner's easement|sovereign immunity|extradition|promissory estoppel|legal realism",
    "math": "the order of an element in Z_12|a ring homomorphism|the kernel of a linear map|the mean of a sample of scores|a chi-square test|a p-value|the determinant of a 3 by 3 matrix|the radius of convergence|the number of subgroups|a continuous function on a closed interval|the slope of the regression line in a sample|a bag with red and blue marbles|the sum of an arithmetic sequence|the remainder when divided by 7|a polynomial over a finite field|the volume of a solid of revolution|significance levels",
    "other": "sexual arousal and response|attitudes towards homosexuality|gender identity|contraception use among couples|sexual dysfunction therapy|puberty and sexual development|paraphilias|attraction and love styles|sexual orientation research|marital satisfaction|HIV risk behaviour and attitudes|social stratification|Weber's ideal types|Durkheim on suicide rates|Marx on class conflict|the nuclear family in sociology|gender roles in society|deviance and labelling theory|bureaucracy|social mobility|secularisation|ethnic minorities and racism in society|the welfare state and poverty|urban communities|mass media and culture industries|patriarchy|nuclear proliferation treaties|the Copenhagen school of security|humanitarian intervention|terrorism and state security|human security|foreign aid policy of the US|containment in American foreign policy|NATO expansion|population density|map projections|migration and push factors|central place theory|the Supreme Court and elections|political parties and lobbying|federal bureaucracy|crisis communication by a spokesperson|media relations|bond amortisation entries|inventory valuation by LIFO|deferred tax|an auditor's opinion|trivia about films|national anthems|sports records|brand names of sweets|deaths from natural disasters worldwide|literacy rates in developing countries",
    "philosophy": "the Five Pillars of Islam|the Torah|the Buddha's Four Noble Truths|the caste system in Hindu scripture|Shinto shrines|Sikh gurus|Zen koans|the Upanishads|the Gospel of Mark|Jain non-violence|Anselm's ontological argument|Aquinas on natural law|Epicurus on death|a moral dilemma about lying to a friend|Mill's harm principle|Moore's open question|Kierkegaard and faith|a categorical syllogism|symbolisation in predicate logic|a valid argument form|the slippery slope fallacy|an appeal to ignorance|whether an act is morally wrong|Singer's view on animals|capital punishment as a moral problem|Parfit on identity",
    "physics": "the age of the universe|main sequence stars|the asteroid belt|the rings of Saturn|the surface of Venus|a total solar eclipse|why planets have seasons|the brightness of a star|telescopes and resolution|craters on Mercury|the cosmic microwave background|comets and the Kuiper belt|the acceleration of a block on an incline|a spring with constant k|two point charges|a concave mirror's focal length|a diffraction pattern|the energy levels of hydrogen|the half-life of a nucleus|an ideal heat engine|angular momentum of a disc|a magnetic dipole|Hubble's law|the refractive index of glass",
    "psychology": "reinforcement schedules|the Rorschach test|a client in psychotherapy|the serial position effect|standardised test norms|the fundamental attribution error|Erikson's stages|temperament of infants|selective attention|schema theory|professional ethics of a psychologist|job satisfaction of employees and personality|dual relationships with clients|the hippocampus in memory|neurotransmitters and mood",
}
_FRAMES = [
    "Which of the following is true about {topic}?",
    "Which of the following best describes {topic}?",
    "Which statement about {topic} is NOT correct?",
    "In the context of {topic}, which is an example?",
    "{Topic} refers to",
    "{Topic} is best defined as",
    "A key feature of {topic} is",
    "Which of these is most closely associated with {topic}?",
    "According to most textbooks, {topic}",
    "The main purpose of {topic} is",
    "What is the primary cause of {topic}?",
    "Determine the correct answer concerning {topic}.",
    "What does the term {topic} mean?",
    "All of the following concern {topic} EXCEPT",
    "Which of the following was a result of {topic}?",
    "What is {topic}?",
    "How many types of {topic} are there?",
    "Suppose a question is about {topic}. What follows?",
    "The relationship between {topic} and {topic2} is best described as",
    "Compared with {topic2}, {topic} is",
    "Who first described {topic}?",
    "As regards {topic}, experts agree that",
    "Explain {topic}.",
    "Why is {topic} important?",
    "tell me about {topic}",
]
EXAM_TOPICS: dict[str, list[str]] = {domain: text.split("|") for domain, text in _RAW.items()}


def exam_question(rng: random.Random) -> tuple[str, str]:
    """A question and its domain."""
    domain = rng.choice(sorted(EXAM_TOPICS))
    pool = EXAM_TOPICS[domain] if rng.random() < 0.7 else TOPICS[domain]
    topic, other = rng.sample(pool, 2)
    text = rng.choice(_FRAMES).replace("{topic2}", other).replace("{topic}", topic)
    return text.replace("{Topic}", topic[0].upper() + topic[1:]), domain
