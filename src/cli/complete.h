/* What the bash and zsh completion of capsule-cli ask: `capsule-cli --complete WORD...`. */
#ifndef CAPSULE_CLI_COMPLETE_H
#define CAPSULE_CLI_COMPLETE_H

/*
 * Prints what could stand in place of the last word, given those before it (the program's name is
 * not among them), one candidate a line: the word, and after a tab, where there is one, its
 * explanation. Lines ":files" and ":dirs" mean names of files and directories, too. The candidates
 * come from the table of subcommands and their help texts, the launchers, the local store and the
 * list of runs. Returns the exit status, 0: where nothing fits, nothing is printed.
 */
int complete_print(int argc, char **argv);

#endif
