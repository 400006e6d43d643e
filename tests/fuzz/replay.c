/* SPDX-License-Identifier: Apache-2.0
 * Runs a fuzz target over every file of the corpus folders given: what libFuzzer found once stays found. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    FILE    *f = fopen(path, "rb");
    uint8_t *data;
    long     size;

    if (f == NULL)
        return -1;
    if (fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0) {
        fclose(f);
        return -1;
    }
    /* an exact-size heap block, so that the address sanitizer sees one byte too far */
    data = malloc(size > 0 ? (size_t)size : 1);
    if (data == NULL || fread(data, 1, (size_t)size, f) != (size_t)size) {
        free(data);
        fclose(f);
        return -1;
    }
    fclose(f);
    (void)LLVMFuzzerTestOneInput(data, (size_t)size); /* it always answers 0 */
    free(data);
    return 0;
}

static int run_folder(const char *folder)
{
    DIR           *dir = opendir(folder);
    struct dirent *entry;
    int            n_files = 0;

    if (dir == NULL)
        return -1;
    while ((entry = readdir(dir)) != NULL) {
        char path[4096];

        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (run_file(path) != 0) {
            n_files = -1;
            break;
        }
        n_files++;
    }
    closedir(dir);
    return n_files;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int n_files = run_folder(argv[i]);

        if (n_files <= 0) {
            fprintf(stderr, "%s: no readable corpus files\n", argv[i]);
            return 1;
        }
        printf("%s: %d inputs\n", argv[i], n_files);
    }
    return argc > 1 ? 0 : 2;
}
