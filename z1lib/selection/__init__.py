"""Which of several answers is the answer: pure rules over candidates, in the order in which they were paid for."""
