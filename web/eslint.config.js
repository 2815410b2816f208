import hooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["node_modules", "dist", "eslint.config.js"] },
  ...tseslint.configs.strictTypeChecked,
  { languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } } },
  {
    plugins: { "react-hooks": hooks },
    rules: {
      "react-hooks/rules-of-hooks": "error",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-non-null-assertion": "off", // typed arrays, where the index is known to be inside
      "@typescript-eslint/no-confusing-void-expression": "off", // `return toast(…)` reads well
      "@typescript-eslint/no-meaningless-void-operator": "off", // `void [a.value]` says that reading is enough
      "no-restricted-properties": ["error", { property: "innerHTML", message: "names and texts come from users" }],
      "no-restricted-syntax": ["error", { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: "names and texts come from users" }],
    },
  },
);
