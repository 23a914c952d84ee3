"""Attacks on the running proxy, from outside: it is started as users start it, and given bytes.

Nothing of coatcheck is imported but what prepares a home. A test knows what went out on the
client's socket and what came back, what every upstream received, which names were looked up, and
every connection that anybody tried to open. Row ids such as ``host_02`` stand in the test names.

`COATCHECK_ATTACK_TARGET=naive` runs the same tests against mitmdump with a plain addon
(`naive/`), which shows that they can fail.
"""
