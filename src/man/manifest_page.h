/* capsule.yaml(5), from the schema table. */
#ifndef CAPSULE_MAN_MANIFEST_PAGE_H
#define CAPSULE_MAN_MANIFEST_PAGE_H

/* Writes DIR/capsule.yaml.5. Problems end the program. */
void manifest_page_write(const char *dir);

#endif
