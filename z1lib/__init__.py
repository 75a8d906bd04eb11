"""The study's package: four verbs, each one notebook, one folder here, one line of the Makefile, one kind of artifact.

Ground: small; it imports nothing of ours but itself, and every stage stands on it.
  records       the rows that pass from one notebook to the next
  files         JSON lines, files that are whole or absent, journals that survive a kill
  cost          what an answer took, by whomever; costs add up
  window        the Shifted Thinking Window and its rivals: pure policies, per token
  stats         intervals, paired tests, ratios: arrays in, numbers out
  chat          from a conversation to token ids
  models        where a base model comes from, what ends its answers, and what identifies it
  attention     is a model's own attention the plain kind that ours computes
  profile       the numbers of one run, checked
  provenance    what a result was made by: commit, code, machine, versions
  hardware      what this machine has, and which profile fits it
  study         one run on disk
  progress      bars for long work
  plots         how every picture and table looks, is stamped and shown
  exercises     checks for the exercises
Rooms shared by the stages:
  problems/     where problems come from, one file a source
  engines/      how a model is decoded, one file an engine
  sandbox/      where programs that a model wrote run
  grading/      is an answer right, and by which rule was it found
  selection/    which of several answers counts: pure rules, per problem
  published/    what papers printed, and what follows from it
Wings, named like the notebooks; a wing uses the ground, the rooms and the wings before it:
  curation/     01: from questions to supervised trajectories
  sft/          02: supervised fine-tuning on responses
  inference/    03: completions under a policy, and the sweep over windows
  analysis/     04 and 05: tables, pictures, sentences
  eval/         the front door for one's own model: `python -m z1lib.eval`
  pages/        what people look at: terminal, demo, explorer, report, and what is published
"""
