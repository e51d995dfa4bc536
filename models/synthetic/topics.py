"""Things people ask about, per domain: the words that carry a domain when the form of the question does not."""

# ruff: noqa: E501 - lists of example sentences read better unbroken
from __future__ import annotations

_RAW: dict[str, str] = {
    "biology": "photosynthesis|mitosis|meiosis|DNA replication|CRISPR|natural selection|the Krebs cycle|osmosis"
    "|how vaccines train immune cells|the nervous system of octopuses|gut bacteria|why leaves turn red in autumn"
    "|coral bleaching|bird migration|gene drift|dominant and recessive alleles|mitochondria|ribosomes|RNA splicing"
    "|antibiotic resistance in bacteria|food webs|pollination by bees|how whales evolved|fungi and mycelium networks"
    "|stem cells|the difference between viruses and bacteria|enzymes|keystone species|how muscles contract|tardigrades"
    "|embryo development|the blood-brain barrier|invasive species|nitrogen fixation|phylogenetic trees|cell membranes"
    "|epigenetics|how plants drink water|bioluminescence|hibernation of bears|ant colonies|prions|sickle cell inheritance"
    "|the carbon cycle in forests|photoreceptors in the eye|why cats purr|symbiosis|telomeres|Mendel's pea plants"
    "|transcription factors|speciation on islands|homeostasis|chloroplasts|protein synthesis|insect metamorphosis"
    "|the endosymbiotic theory|population bottlenecks|how snakes smell|biodiversity loss|kelp forests",
    "business": "writing a business plan|our marketing funnel|SWOT analysis|pricing a SaaS product|brand positioning"
    "|supply chain delays|customer churn|OKRs|employee retention|a franchise|corporate governance|inventory turnover"
    "|hiring a sales manager|a cash flow forecast|market segmentation|venture capital term sheets|B2B lead generation"
    "|the four Ps of marketing|total quality management|lean startup|mergers and acquisitions|onboarding new employees"
    "|dropshipping margins|negotiating with suppliers|Porter's five forces|a subscription business model|break-even point"
    "|change management|performance reviews|a pitch deck|corporate social responsibility|business ethics|customer lifetime value"
    "|outsourcing payroll|unit economics|a product launch|stakeholder management|Six Sigma|e-commerce conversion rate"
    "|working capital|net present value of a project|bond yields for a company treasury|trade credit terms|advertising regulation"
    "|family business succession|working with influencers|cold emailing prospects|return on ad spend|a balanced scorecard"
    "|merchandise markup|commission schemes|compound interest on a loan|depreciation of equipment|retail store layout",
    "chemistry": "balancing chemical equations|covalent bonds|pH of a buffer|titration|the periodic table|oxidation states"
    "|Le Chatelier's principle|molarity|isomers|electron configuration|Gibbs free energy|catalysts|noble gases"
    "|why salt melts ice|acids and bases|soap making reactions|polymers|electrolysis of water|galvanic cells"
    "|reaction rates|SN1 versus SN2|hybridisation of carbon|hydrogen bonding|distillation|chromatography|rust"
    "|stoichiometry|limiting reagents|ideal gas law problems|enthalpy of formation|solubility product|aromatic compounds"
    "|esters and smells|the Haber process|crystal lattices|spectroscopy NMR peaks|functional groups|Avogadro's number"
    "|baking soda and vinegar|VSEPR shapes|organic synthesis of aspirin|lithium battery chemistry|transition metal complexes"
    "|vapour pressure|colligative properties|isotopes|redox half reactions|mass spectrometry|sugar caramelisation"
    "|Raoult's law|the rate constant|azeotropes|electronegativity|alkanes and alkenes|why ice floats on a molecular level",
    "computer science": "binary search|big O notation|hash tables|TCP handshakes|SQL joins|git rebase|Docker containers"
    "|Kubernetes pods|recursion|dynamic programming|neural networks|public key encryption|garbage collection|REST APIs"
    "|a React component|Python list comprehensions|race conditions|deadlocks|operating system paging|compilers|regex"
    "|microservices|load balancers|NoSQL versus SQL|machine learning overfitting|gradient descent|transformers in NLP"
    "|unit testing|CI pipelines|cache eviction|B-trees|graph traversal|Turing machines|NP-complete problems|pointers in C"
    "|Rust ownership|async await in JavaScript|DNS|HTTPS certificates|virtual memory|message queues|WebSockets"
    "|my CSS grid layout|a segmentation fault|Linux file permissions|bash scripts|Excel VBA macros|PostgreSQL indexes"
    "|functional programming|design patterns|the CAP theorem|an API rate limit|OAuth login|a Raspberry Pi script"
    "|decision trees|bit manipulation|JSON parsing|a memory leak|cloud functions|large language models|vector databases",
    "economics": "inflation|supply and demand|GDP|monopolies|the Phillips curve|interest rates set by the central bank"
    "|opportunity cost|price elasticity|comparative advantage|fiscal policy|quantitative easing|unemployment figures"
    "|trade deficits|exchange rates|game theory in oligopolies|the Gini coefficient|minimum wage effects|externalities"
    "|carbon taxes|public goods|moral hazard|the gold standard|stagflation|aggregate demand|consumer surplus|tariffs"
    "|the Great Recession|rent control|the multiplier effect|Keynes versus Hayek|marginal utility|purchasing power parity"
    "|hyperinflation in Zimbabwe|labour market participation|perfect competition|the money supply|bank runs|deflation"
    "|universal basic income costs|economic growth models|indifference curves|deadweight loss|national debt|recessions"
    "|the Laffer curve|income effect|the balance of payments|price ceilings|housing market bubbles|tax incidence"
    "|regression with panel data|autocorrelation in time series|the housing shortage|Bitcoin as money|economies of scale",
    "engineering": "beam deflection|Ohm's law in my circuit|a PID controller|stress and strain|heat exchangers|pump curves"
    "|bridge design|a step-down converter|reinforced concrete|the Rankine cycle|gear ratios|fluid flow in pipes|an op-amp filter"
    "|three-phase motors|welding stainless steel|truss analysis|control systems and Bode plots|finite element meshes|HVAC sizing"
    "|transformer efficiency|signal modulation|fatigue of metals|CNC machining tolerances|3D printer nozzles|hydraulic cylinders"
    "|soil bearing capacity|turbine blades|bearing lubrication|antenna gain|a voltage divider|PCB layout|Reynolds number in ducts"
    "|dam construction|brake systems|suspension tuning of a car|solar inverter wiring|bolt torque|sensor calibration"
    "|transistor amplifiers|Laplace transfer functions|insulation thickness of a pipe|electric car battery packs|steel grades"
    "|flow through an orifice|wind load on a roof|a servo motor with Arduino|CAD drawings|DC generators and armature reaction"
    "|FM receivers|heat conduction through a wall|moment of inertia of an I-beam|drones and rotor thrust|relays|concrete curing",
    "health": "high blood pressure|migraine|type 2 diabetes|vitamin D|my sore throat|sleep apnea|a sprained ankle|cholesterol"
    "|the side effects of ibuprofen|flu or covid symptoms|back pain from sitting|a low carb diet|intermittent fasting|asthma inhalers"
    "|pregnancy nutrition|iron deficiency|how much protein I need|eczema|physiotherapy after knee surgery|heart attack signs"
    "|stroke symptoms|vaccination schedule for babies|stretching before running|dehydration|food poisoning|lactose intolerance"
    "|skin rash|blood test results|menopause|hay fever|a fever in a toddler|drinking enough water|tooth pain|heartburn"
    "|weight loss plateau|kidney stones|insomnia treatment|CPR|wound care|gluten intolerance|thyroid hormones|anaemia"
    "|antibiotics and alcohol|ageing and bone density|hearing loss in old people|nursing care plans|a patient with chest pain"
    "|quitting smoking|sunburn|HIV transmission|concussion|arthritis|osteoporosis|fibre in the diet|strength training for seniors",
    "history": "the fall of Rome|the French Revolution|World War I causes|the Cold War|ancient Egypt|the Black Death|the Silk Road"
    "|the Ottoman Empire|the American Civil War|Genghis Khan|the Renaissance|Napoleon's invasion of Russia|the Meiji restoration"
    "|Vikings|the Industrial Revolution|the Treaty of Versailles|Cleopatra|the Spanish conquest of the Aztecs|apartheid"
    "|the Cuban missile crisis|the Berlin Wall|colonialism in Africa|the Magna Carta|Alexander the Great|the Crusades"
    "|the Ming dynasty|the partition of India|women's suffrage|the Great Depression in America|Julius Caesar|Mesopotamia"
    "|Neanderthals and early humans|the Inca road system|the Russian Revolution|D-Day|the Holocaust|the Boston Tea Party"
    "|feudal Japan|the Hundred Years' War|the Byzantine Empire|Stone Age tools|the transatlantic slave trade|Martin Luther's theses"
    "|the Maya collapse|the Enlightenment|the Habsburgs|the Korean War|Joan of Arc|the printing press|Abraham Lincoln"
    "|archaeology of Pompeii|the Mongol invasions|the Gold Rush|Queen Elizabeth I|the Weimar Republic|the moon race",
    "law": "breach of contract|my landlord keeping the deposit|copyright of a photo|trademark registration|GDPR|small claims court"
    "|a non-compete clause|custody after divorce|wrongful dismissal|negligence|habeas corpus|the Fourth Amendment|a speeding ticket"
    "|inheritance without a will|power of attorney|defamation|patent infringement|an eviction notice|unpaid overtime|a prenup"
    "|self-defence|search warrants|criminal intent|burden of proof|jury selection|international treaties|arbitration clauses"
    "|employment law in Germany|consumer rights for faulty goods|tenant rights|hearsay|the statute of limitations|a car accident claim"
    "|limited liability|visa and immigration rules|judicial review|tort law|plea bargains|easements|adverse possession|bail"
    "|due process|separation of powers|free speech|terms of service|data protection officers|the law of the sea|human rights courts"
    "|consideration in contract law|mens rea|eminent domain|bankruptcy chapter 7|a restraining order|double jeopardy|usufruct",
    "math": "quadratic equations|the Pythagorean theorem|derivatives|integration by parts|matrix multiplication|eigenvalues|prime numbers"
    "|probability of dice|standard deviation|logarithms|fractions|percentages|geometric series|complex numbers|limits|the chain rule"
    "|linear algebra|combinations and permutations|Bayes' theorem|differential equations|set theory|modular arithmetic|group theory"
    "|the area of a circle|trigonometry identities|proof by induction|vectors|polynomials|inequalities|graphs of functions|hypothesis tests"
    "|confidence intervals|the normal distribution|long division|ratios|systems of equations|Fourier series|topology|number sequences"
    "|the binomial theorem|slope of a line|absolute values|square roots|infinite series convergence|determinants|word problems about trains"
    "|volume of a cone|the golden ratio|Pascal's triangle|rings and ideals|expected value|sampling bias|median versus mean|radians",
    "other": "the rules of chess openings|how to bake sourdough|planning a trip to Japan|guitar chords|my cat's behaviour|gardening tomatoes"
    "|the offside rule in football|film noir|celebrity gossip|board games|hiking gear|a birthday present|the longest river in Africa"
    "|capital cities|flags of the world|country populations|accounting for leases|double-entry bookkeeping|auditing inventory"
    "|tax-deductible expenses|a trial balance|public relations campaigns|press releases|United Nations peacekeeping|elections in France"
    "|nuclear deterrence|the Electoral College|social classes and inequality|sociology of the family|urbanisation|Hollywood movies"
    "|the Beatles|NBA history|Olympic host cities|world cuisine|wine pairing|knitting patterns|photography lighting|pop music charts"
    "|car models|dog training|interior design|fashion trends|crossword clues|geography of South America|time zones|hotel reviews|TV series"
    "|football transfers|cocktail recipes|camping with kids|learning Spanish|the weather|Greek mythology characters|comic books|origami"
    "|security studies|US foreign policy|immigration patterns|religious holidays|famous paintings|the Eurovision song contest|anime",
    "philosophy": "free will|utilitarianism|Kant's categorical imperative|Plato's cave|stoicism|existentialism|the trolley problem"
    "|Nietzsche's will to power|epistemology|the mind-body problem|Socrates|Descartes and doubt|moral relativism|logical fallacies"
    "|the ship of Theseus|virtue ethics|nihilism|consciousness and qualia|Aristotle's golden mean|Buddhism and the self|Confucius"
    "|the social contract|the problem of evil|arguments for God's existence|Hume on causation|phenomenology|determinism|personal identity"
    "|Rawls and the veil of ignorance|the meaning of life|absurdism in Camus|Wittgenstein's language games|animal ethics|euthanasia debates"
    "|ad hominem arguments|begging the question|syllogisms|propositional logic|truth tables|what makes an action right|Hinduism and karma"
    "|Taoism|the Euthyphro dilemma|justice according to Plato|skepticism|Sartre and bad faith|ethics of abortion|world religions"
    "|Islamic philosophy|Hegel's dialectic|pragmatism|paradoxes|aesthetics|the nature of time in metaphysics|Singer on famine",
    "physics": "Newton's laws|gravity|black holes|quantum entanglement|special relativity|the speed of light|magnetic fields|thermodynamics"
    "|entropy|the double-slit experiment|Schrodinger's cat|kinetic energy|momentum|friction|electric charge|capacitors in series"
    "|the Doppler effect|lenses and mirrors|waves and interference|nuclear fusion|radioactive decay|dark matter|the Higgs boson"
    "|projectile motion|pendulums|centripetal force|why the sky is blue|string theory|superconductors|lasers|photons|Maxwell's equations"
    "|the Big Bang|neutron stars|the solar system's planets|planet orbits|buoyancy|sound speed|pressure in fluids|heat transfer by radiation"
    "|work and power|torque|simple harmonic motion|semiconductors|the photoelectric effect|time dilation|tides|relativity of simultaneity"
    "|red shift of galaxies|diffraction gratings|free fall|induction coils|the uncertainty principle|Kepler's laws|moon phases|tension in a rope",
    "psychology": "cognitive biases|attachment styles|classical conditioning|anxiety|my motivation at work|imposter syndrome|Freud|Piaget's stages"
    "|memory and forgetting|the bystander effect|depression and therapy|burnout|personality types|the placebo effect on mood|procrastination"
    "|narcissism|ADHD in adults|the Stanford prison experiment|conformity|operant conditioning|sleep and learning|grief|emotional intelligence"
    "|body language|social anxiety|self-esteem|group think|cognitive behavioural therapy|phobias|child development|autism|Maslow's hierarchy"
    "|habits|a toxic relationship|stress coping|intelligence tests|working memory|stereotypes|learned helplessness|couples therapy"
    "|Milgram's obedience study|introversion|moral development by Kohlberg|post-traumatic stress|schizophrenia symptoms|perception illusions"
    "|the mere exposure effect|parenting styles|addiction and craving|sexual orientation and identity|adolescence|cognitive dissonance"
    "|counselling ethics|test validity and reliability|jealousy|why people lie|eating disorders|mindfulness",
}
TOPICS: dict[str, list[str]] = {domain: text.split("|") for domain, text in _RAW.items()}

DOMAIN_FRAMES = [
    "explain {topic}",
    "can you explain {topic}?",
    "Explain {topic} in simple terms.",
    "what is {topic}",
    "What exactly is meant by {topic}?",
    "how does {topic} work?",
    "tell me about {topic}",
    "I'm struggling with {topic}, any tips?",
    "why does {topic} matter",
    "teach me {topic}",
    "give me a summary of {topic}",
    "quiz me on {topic}",
    "I need help with {topic}",
    "help me understand {topic} please",
    "what are common mistakes about {topic}?",
    "my professor keeps talking about {topic} and I have no idea what it is",
    "write an essay about {topic}",
    "write me a 500 word text on {topic}",
    "got a test tomorrow about {topic}, what should i revise",
    "Could you recommend books about {topic}?",
    "whats the history behind {topic}",
    "pros and cons of {topic}",
    "is it true what they say about {topic}",
    "I read an article on {topic} and have a question",
    "My son asked me about {topic}. What do I tell him?",
    "I was wondering about {topic}",
    "{topic}?",
    "{topic}",
    "{topic} explained",
    "{topic} for beginners",
    "compare {topic} with {topic2}",
    "What is the link between {topic} and {topic2}?",
    "Difference between {topic} and {topic2}?",
    "make 5 multiple choice questions about {topic}",
    "Create flashcards on {topic}",
    "Give three examples of {topic} from real life.",
    "What would happen if we did not have {topic}?",
    "who came up with {topic}",
    "ELI5 {topic}",
    "In one paragraph: {topic}.",
    "Someone on reddit claimed something odd about {topic} and I'd like to know what is right.",
    "I need a slide deck outline on {topic}",
    "Hi, I'm a nurse and for a course I have to talk about {topic}. What would be the main points?",
    "what's the latest on {topic}",
    "I've got an interview soon and they will ask about {topic}",
    "how would an expert think about {topic}",
    "best way to learn {topic}",
    "As a beginner, where do I start with {topic}?",
    "What are the key concepts behind {topic}?",
    "Is {topic} hard to understand?",
    "we discussed {topic} at dinner and nobody agreed",
    "Please correct me if I am wrong about {topic}.",
    "why is {topic} so confusing",
    "I have {topic} on my mind. Any advice?",
    "what should I do about {topic}",
    "can you check my understanding of {topic}?",
]
