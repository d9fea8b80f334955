/* What the kernel starts for a program of the device: qemu with one fixed processor, whatever becomes of the environment
   (qemu 7.2's default processor has an SME that computes wrong). binfmt_misc with the flag P gives: this, file, argv[0],
   arguments. QEMU and CPU are given when it is compiled. */
#include <unistd.h>

int main(int argc, char **argv, char **envp) {
    char *out[argc + 4];
    int n = 0;
    if (argc < 3)
        return 127;
    out[n++] = QEMU;
    out[n++] = "-cpu";
    out[n++] = CPU;
    out[n++] = "-0";
    out[n++] = argv[2];
    out[n++] = argv[1];
    for (int i = 3; i <= argc; i++) /* the NULL at the end too */
        out[n++] = argv[i];
    execve(QEMU, out, envp);
    return 127;
}
